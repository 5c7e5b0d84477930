"""From a file's bytes to tensors on the host."""
