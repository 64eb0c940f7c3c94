"""What people can do besides listening: one table for RPC and REST."""
