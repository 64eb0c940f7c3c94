"""Threads, messages and runs as tables: the projection of the log."""
