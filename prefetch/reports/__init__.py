"""What the prefetcher tells: the status, its pictures and totals, Prometheus text, the line per batch."""
