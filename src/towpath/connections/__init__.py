"""One live connection: its socket, its commands, its session, its end."""
