"""Measurements that anyone can run: `make bench`, or `make bench ARGS=ingest`.

Each compares two ways side by side in the same run, on a PostgreSQL of its own with `fsync` on, and
prints a ratio; absolute figures depend on the machine.
"""
