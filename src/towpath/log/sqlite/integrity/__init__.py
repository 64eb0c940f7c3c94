"""What the log does against damage of its file."""
