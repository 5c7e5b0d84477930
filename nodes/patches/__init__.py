"""From leased adapters to patches of the host's model."""
