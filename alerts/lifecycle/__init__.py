"""Alerts and incidents from opening to the end: correlation, cause, evidence, history."""
