"""Checkpoints and other models that the queue names, brought into the page cache."""
