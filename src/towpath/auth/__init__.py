"""Authentication and the access policy."""
