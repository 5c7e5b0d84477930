"""Adapters in memory, under a budget."""
