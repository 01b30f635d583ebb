"""A short measurement of a service from outside: what `sluicegate bench` runs."""
