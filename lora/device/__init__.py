"""Adapters on a GPU, under a budget of their own."""
