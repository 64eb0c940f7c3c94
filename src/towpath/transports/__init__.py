"""How messages travel; decides nothing."""
