"""Many LoRAs added to a weight as one."""
