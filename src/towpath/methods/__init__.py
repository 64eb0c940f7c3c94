"""What a client can do besides subscribing: one table of methods for RPC and REST."""
