"""The projection as tables of the SQLite file."""
