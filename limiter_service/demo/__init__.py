"""The demo: one workload against a simulated provider, without and with Sluicegate."""
