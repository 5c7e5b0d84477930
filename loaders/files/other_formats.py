"""The formats beside safetensors, by the ends of their names."""

from __future__ import annotations

PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
GGUF_SUFFIX = ".gguf"
