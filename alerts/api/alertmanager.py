"""An Alertmanager's doors: a Prometheus, or another Alertmanager, hands its alerts to us.

A Prometheus is given this host with `path_prefix: /alertmanager`, and a key of the organization.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Tenant
from alerts.api.foreign import ForeignDoor, inside
from alerts.doors import alerta_query, alertmanager, entry, pace
from alerts.lifecycle import external
from alerts.lifecycle.external import Statement
from alerts.models import Alert
from sentinel_site.kit.tenancy import tenant_link

MOST = 5000
MOST_BYTES = 16 * 2**20


class AlertsView(ForeignDoor):
    def post(self, request: Request) -> Response:
        holder, now = self.sender(request), timezone.now()
        statements = self.parse(self.body(request), now)
        ends = [one for one in statements if one.severity is None]
        firing = [one for one in statements if one.severity is not None]
        with inside(holder):
            # what is over first: it is taken also where no more may open
            pace.admit(holder.schema_name, ends, time.monotonic())
            with entry.briefly():
                external.accept(ends, now)
            pace.admit(holder.schema_name, firing, time.monotonic())
            with entry.briefly():
                external.accept(firing, now)
        return Response({"status": "success"})

    def parse(self, given: Any, now: Any) -> list[Statement]:
        return alertmanager.parse(given, now)

    def get(self, request: Request) -> Response:
        """Open alerts, newest first: at most MOST of them, and no more than MOST_BYTES."""
        with inside(self.reader(request)) as tenant, alerta_query.in_time():
            shown = list(_as_far_as_fits(tenant))
        return Response(shown)


def _as_far_as_fits(tenant: Tenant) -> Iterator[dict[str, Any]]:
    rows = Alert.objects.filter(resolved_at=None).select_related("incident", "server", "received")
    size = 0
    for alert in rows[:MOST].iterator(chunk_size=100):
        link = tenant_link(tenant, "alerts:incident", alert.incident_id)
        shown = alertmanager.document(alert, link)
        size += len(json.dumps(shown))
        if size > MOST_BYTES:
            return
        yield shown


class WebhookView(AlertsView):
    """For `webhook_config` of an Alertmanager that stays."""

    def parse(self, given: Any, now: Any) -> list[Statement]:
        return alertmanager.parse_webhook(given, now)
