"""Agents and their runs: one run as a table, who may be asked, and who carries the events."""
