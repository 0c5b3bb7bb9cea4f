"""Real servers of objects, started for tests, and what is put before them."""
