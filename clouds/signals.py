"""What those above are told of servers, after the commit."""

from django.dispatch import Signal

#: schema: str, server_id: int. A server's status was changed by a person or by itself.
server_changed = Signal()
