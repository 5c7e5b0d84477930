"""GGUF: its header, its packed tensors and how they are dequantised."""
