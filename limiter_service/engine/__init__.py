"""What the service decides: policies, charges, admission. No HTTP, no Redis calls."""
