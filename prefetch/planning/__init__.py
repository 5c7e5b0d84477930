"""What should be warm by when: the plan, its deadlines, and guesses about jobs that are not queued yet."""
