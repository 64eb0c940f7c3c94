"""The wire, sans-I/O: bytes become commands, replies and pushes become bytes."""
