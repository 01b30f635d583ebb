"""A policy tried on recorded calls: the real engine and scripts, in a time that jumps."""
