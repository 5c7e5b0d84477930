"""What the prefetcher tells: what a status shows, the jobs that ended, Prometheus text, the line per batch."""
