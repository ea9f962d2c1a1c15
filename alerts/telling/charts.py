"""The chart that goes with a message: the series that its alert is about, and its limit."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from alerts.models import Alert, Rule
from alerts.notifiers import Picture
from alerts.values import pictures
from alerts.values.pictures import Curve
from alerts.values.wording import number
from metrics import queries
from metrics.stores.base import StoreUnavailable

log = structlog.get_logger(__name__)

#: So much before the message is shown.
SPAN = timedelta(hours=3)
_SERVICES = "service"
_POINTS = 180
_CURVES = 6


def of(tenant_id: int, alert: Alert, at: datetime) -> Picture | None:
    """The chart of an alert until this time; None where there are no numbers to show."""
    rule = alert.rule
    if rule is None or rule.kind != Rule.Kind.METRIC or alert.server_id is None:
        return None
    tags = {"service": alert.service} if rule.measurement == _SERVICES else {}
    try:
        chart = queries.series(
            tenant_id,
            alert.server_id,
            rule.measurement,
            rule.field,
            tags,
            start=at - SPAN,
            end=at,
            points=_POINTS,
        )
    except StoreUnavailable as error:
        log.warning("a message goes without its chart", alert=alert.pk, reason=str(error))
        return None
    lines = [line for line in chart.series if any(value is not None for value in line.values)]
    lines = [line for line in lines if alert.subject in line.tags.values()] or lines
    if not lines:
        return None
    curves = [Curve(line.times, line.values) for line in lines[:_CURVES]]
    png = pictures.draw(curves, at - SPAN, at, alert.unit, alert.limit)
    return Picture(png, pictures.WIDTH // 2, pictures.HEIGHT // 2, _in_words(rule, alert))


def _in_words(rule: Rule, alert: Alert) -> str:
    what = f"{rule.measurement} {rule.field} of {alert.host}".replace("_", " ")
    limit = f", limit {number(alert.limit, alert.unit)}" if alert.limit is not None else ""
    return f"{what} over the last {SPAN.seconds // 3600} hours (UTC){limit}"
