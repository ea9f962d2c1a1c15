"""Server-rendered pages and their forms and reads."""
