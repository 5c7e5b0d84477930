"""What ComfyUI asks of comfy_aimdo: device memory for weights that comes, and is taken away again, by pages."""
