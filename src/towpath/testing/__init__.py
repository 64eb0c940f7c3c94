"""The public test kit: a real server on a free port, a client that speaks the wire."""
