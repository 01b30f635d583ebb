"""One module per dialect: its table of rules, and how its errors are read where that differs."""
