"""Plugins at run time: each function in a process of its own, confined, watched, restarted."""
