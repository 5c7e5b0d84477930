"""What the panel and programs ask over HTTP, and the status that they are told."""
