"""Agents: what an agent author meets, the adapters of frameworks, and the agents that ship."""
