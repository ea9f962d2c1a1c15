"""Finds what runs on a host: OpenStack's services, what they stand on, the release, the role."""
