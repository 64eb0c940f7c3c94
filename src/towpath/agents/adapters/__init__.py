"""Adapters that turn agents of a framework into agents of a gateway, one file per framework."""
