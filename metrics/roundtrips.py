"""How long ago the canary's last full round trip was: report, rule, notification."""

from __future__ import annotations

from datetime import datetime

from metrics.models import RoundTrip

_ONLY = 1


def set_out(at: datetime) -> None:
    """A canary sets out; the first one begins the record."""
    RoundTrip.objects.update_or_create(
        pk=_ONLY, defaults={"set_out_at": at}, create_defaults={"began_at": at, "set_out_at": at}
    )


def arrived(at: datetime) -> None:
    """The message about it came through."""
    RoundTrip.objects.filter(pk=_ONLY).update(arrived_at=at)


def last() -> RoundTrip | None:
    return RoundTrip.objects.filter(pk=_ONLY).first()
