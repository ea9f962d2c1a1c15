"""What was kept to ourselves in a maintenance or blackout, told when it is over."""

from __future__ import annotations

from datetime import datetime

from django.db.models import Exists, OuterRef, Q

from alerts.dispatching import dispatch
from alerts.lifecycle import history
from alerts.lifecycle.history import Line
from alerts.models import Alert, Event, Incident, Notification
from alerts.push import live
from clouds import suppression
from clouds.suppression import NO_SERVER


def tell_what_was_muted(at: datetime) -> None:
    """Tell of incidents that opened, came back or got worse while muted, and still hold.

    Whoever knew of one before hears that it is still there; else it is told as opened.
    """
    _lift(at)
    open_alerts = Alert.objects.filter(incident=OuterRef("pk"), resolved_at=None)
    there = Incident.objects.filter(Exists(open_alerts), untold=True, resolved_at=None)
    kept = list(there.order_by("pk"))
    if not kept:
        return
    quiet = dispatch.muted([one.pk for one in kept], at)
    free = [one for one in kept if one.pk not in quiet]
    if not free:
        return
    Incident.objects.filter(pk__in=[one.pk for one in free]).update(untold=False)
    told = Notification.objects.filter(Q(incident__in=free) | Q(incident__merged_into__in=free))
    known = {
        incident
        for pair in told.order_by().values_list("incident", "incident__merged_into").distinct()
        for incident in pair
    }
    again = [one for one in free if one.pk in known]
    times = history.times([one.pk for one in again], Event.Kind.UNMUTED)
    text = "It is not muted any more, and still there."
    history.write(
        [Line(one, Event.Kind.UNMUTED, text, f"unmuted:{times[one.pk] + 1}") for one in again], at
    )
    new = [dispatch.Told(one, f"opened:{one.pk}") for one in free if one.pk not in known]
    dispatch.queue_all(new, at)
    live.announce_on_commit("incident")


def _lift(at: datetime) -> None:
    """Open alerts of servers that are not muted any more are shown like others."""
    muted = Alert.objects.filter(resolved_at=None).exclude(suppressed="")
    servers = {
        server or NO_SERVER
        for server in muted.order_by().values_list("server", flat=True).distinct()
    }
    if not servers:
        return
    over = servers - suppression.active_for(servers, at).keys()
    of_these = Q(server__in=over) | (Q(server=None) if NO_SERVER in over else Q(pk__in=[]))
    if over and muted.filter(of_these).update(suppressed=""):
        live.announce_on_commit("alert")
