"""Delivery on this node: who listens, and what each connection still has to be sent."""
