"""What benchmarks/peers.py measures against: limiters of others, each as its own docs show it."""
