"""Finding rules that a database breaks, or may break, before anybody has written a plan."""
