"""Agents: the interface for agent authors, adapters of frameworks, and the included agents."""
