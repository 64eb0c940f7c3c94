"""Runs of agents: one table, one executor, and the tables that remember them."""
