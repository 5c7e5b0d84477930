"""The ways to load a safetensors file or shards, one file each, and what chooses among them."""
