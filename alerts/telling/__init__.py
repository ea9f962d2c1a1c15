"""Messages in words, and their delivery."""
