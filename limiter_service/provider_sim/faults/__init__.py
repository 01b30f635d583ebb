"""What can go wrong on the way to a caller, and when it does."""
