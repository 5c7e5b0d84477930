"""The files that there are, what they are, and which of them a name means."""
