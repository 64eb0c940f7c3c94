"""The log: what is published is stored first, in order."""
