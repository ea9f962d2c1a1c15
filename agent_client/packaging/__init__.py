"""How the agent is packed: a wheel, a Debian package and an RPM, the same bytes each time.

Not part of what is packed; run as `python -m agent_client.packaging` (`make agent-packages`).
"""
