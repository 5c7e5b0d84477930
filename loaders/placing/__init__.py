"""Which tensor goes to which device, and whether there is room."""
