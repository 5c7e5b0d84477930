"""Many LoRAs added to a weight as one, and how much of one finds its weights."""
