"""Who asks a cloud's APIs: one agent of the organization at a time."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Q

from clouds.models import Lease
from sentinel_site.kit.problems import Problem

SHORTEST = timedelta(seconds=30)
LONGEST = timedelta(days=3)
#: A cloud that nobody asked about for so long is forgotten.
_FORGET_AFTER = timedelta(days=30)
#: No organization has more clouds; a key that asks about ever new ones fills no table.
MOST = 200


class TooManyClouds(Problem):
    status, code, title = 409, "too-many-clouds", "There are leases of too many clouds"


def take(cloud: str, agent: UUID, span: timedelta, now: datetime) -> Lease | None:
    """The lease, taken or prolonged for `span` from now on; None while another agent holds it.

    Two agents that ask at once get one lease between them: the row's conditional update decides.
    Raises TooManyClouds.
    """
    until = now + min(max(span, SHORTEST), LONGEST)
    free = Q(holder=agent) | Q(until__lte=now)
    if Lease.objects.filter(free, cloud=cloud).update(holder=agent, until=until):
        return Lease.objects.get(cloud=cloud)
    if Lease.objects.filter(cloud=cloud).exists():
        return None
    Lease.objects.filter(until__lte=now - _FORGET_AFTER).delete()
    if Lease.objects.count() >= MOST:
        raise TooManyClouds(f"At most {MOST}; one that nobody asks about goes after 30 days.")
    try:
        with transaction.atomic():
            return Lease.objects.create(cloud=cloud, holder=agent, until=until)
    except IntegrityError:
        return None  # another agent was faster by a moment
