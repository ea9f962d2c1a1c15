"""Jobs that are expected to check in."""
