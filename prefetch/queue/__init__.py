"""The jobs that are queued, what each needs, and which files those are."""
