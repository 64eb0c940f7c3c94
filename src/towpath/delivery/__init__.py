"""The readers on this node, and delivery to them."""
