"""Adapters: one module for each framework, which imports it. Nothing here is loaded by itself."""
