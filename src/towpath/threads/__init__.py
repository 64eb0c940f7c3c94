"""Threads, messages and runs: what the log amounts to, kept after the log is gone."""
