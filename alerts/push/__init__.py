"""Hints to open pages over websockets."""
