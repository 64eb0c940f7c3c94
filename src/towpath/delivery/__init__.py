"""Who listens here, and what each one is still to be sent."""
