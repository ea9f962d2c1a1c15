"""Chronos over metrics, Aeolus over log events: from numbers to alerts at one instant."""
