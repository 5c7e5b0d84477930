"""What `benchmarks/loaders.py` is made of."""
