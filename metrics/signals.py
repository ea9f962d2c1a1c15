"""What those above are told, in the process and thread that stored it, after the commit."""

from django.dispatch import Signal

#: tenant_id: int, schema: str, kinds: frozenset of "points", "events", "server",
#: server_ids: frozenset[int]. "server" means that a server is new or said something new of itself.
stored = Signal()
