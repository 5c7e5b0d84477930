"""A stub of the host and a fake backend: what the browser tests open the panel against."""
