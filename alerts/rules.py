"""Change what is watched for, and who is told; each change is in the audit log."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from accounts.access import Access, audit
from accounts.timers import wake
from alerts import incidents, notifiers
from alerts.models import Alert, NotificationChannel, Pending, Rule

_LOOKS_AT = ("kind", "measurement", "field", "tags", "words", "level", "service", "group", "server")


@transaction.atomic
def save_rule(access: Access, rule: Rule, at: datetime) -> Rule:
    """Store a validated rule. What was pending under its old terms begins anew.

    Alerts end when it looks at something else: what they are of is not judged any more.
    """
    before = Rule.objects.filter(pk=rule.pk).values(*_LOOKS_AT).first()
    verb = "rule.changed" if rule.pk else "rule.added"
    rule.changed_at = at
    rule.save()
    Pending.objects.filter(rule=rule).delete()
    if before and before != Rule.objects.values(*_LOOKS_AT).get(pk=rule.pk):
        left = Alert.objects.filter(rule=rule, resolved_at=None)
        text = "Its rule looks at something else now."
        incidents.recover_all([incidents.Recovered(alert, None, text) for alert in left], at)
    audit(access, verb, rule)
    wake(access.tenant.schema_name, at)
    return rule


@transaction.atomic
def delete_rule(access: Access, rule: Rule, at: datetime) -> None:
    """Delete it; its open alerts end at the next evaluation."""
    audit(access, "rule.deleted", rule)
    rule.delete()
    wake(access.tenant.schema_name, at)


@transaction.atomic
def save_channel(access: Access, channel: NotificationChannel) -> dict[str, str]:
    """Store a validated channel; what was made for it, which is shown only this once."""
    verb = "channel.changed" if channel.pk else "channel.added"
    made = notifiers.made(channel.kind, channel.config)
    channel.config = {**channel.config, **made}
    channel.save()
    audit(access, verb, channel, kind=channel.kind)
    return made


@transaction.atomic
def delete_channel(access: Access, channel: NotificationChannel) -> None:
    audit(access, "channel.deleted", channel)
    channel.delete()
