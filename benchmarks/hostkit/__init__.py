"""A real ComfyUI, headless, with tiny models: what the host tests and the host benchmarks share."""
