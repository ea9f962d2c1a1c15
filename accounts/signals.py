"""What apps to the left may wait for."""

from django.dispatch import Signal

#: Sent inside the new tenant's schema, in the transaction that makes it. Arguments: tenant, owner.
tenant_provisioned = Signal()
