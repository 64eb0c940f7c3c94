"""The wire protocol, without I/O: decodes bytes to commands, encodes replies and pushes."""
