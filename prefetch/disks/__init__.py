"""What is known of the disks: how many readers pay on each, and whether the running job reads it."""
