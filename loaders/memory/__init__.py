"""Host memory: how much there is, in pages of which size, kept from an earlier load."""
