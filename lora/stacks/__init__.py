"""The LoRAs of one job, as rows, tags or requests write them."""
