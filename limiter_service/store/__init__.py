"""The only part that speaks Redis: keys, scripts, and one typed method per script."""
