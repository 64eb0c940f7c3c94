"""The methods that a client can call: one table for RPC and REST."""
