"""The agent, installed as a package into a Debian of its own."""
