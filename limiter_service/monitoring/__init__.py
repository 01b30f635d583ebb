"""What operators watch: the names of metrics, and what is made of them (alerts, a dashboard)."""
