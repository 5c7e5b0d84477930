"""Carrying the plan out: which file is read now, pausing, resuming, cancelling."""
