"""What this repository tests itself with; not in the wheel."""
