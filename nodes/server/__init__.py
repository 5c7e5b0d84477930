"""The running ComfyUI: its hooks, its queue, its version, and what is kept between its starts."""
