"""A system of the tests' own: one folder, and one line in the table."""
