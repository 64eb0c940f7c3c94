"""Measurements of a running gateway; `make bench` runs them, README.md says how to read them."""
