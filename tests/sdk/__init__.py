"""Towpath seen through the official SDKs, unmodified, over real sockets."""
