"""What is asked of the operating system: page cache, disks, threads, rates."""
