"""The parts of rate_limit_errors.py: what is compared, how it runs, and how it is judged."""
