"""The model files behind names, and their weights for the host's detection."""
