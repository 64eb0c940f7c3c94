"""One thin file per framework: its agents become agents of a gateway."""
