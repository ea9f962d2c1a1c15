"""Change what is watched for, and who is told; each change is in the audit log."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.db import transaction

from accounts.access import Access, audit
from accounts.timers import wake
from alerts import notifiers
from alerts.lifecycle import incidents
from alerts.models import Alert, NotificationChannel, Pending, Remembered, Rule, RuleVersion
from alerts.rulebook import rulefiles
from alerts.rulebook.rulefiles import Change
from alerts.telling import bounces, fallback

_LOOKS_AT = (
    "kind", "measurement", "field", "tags", "words", "pattern", "level", "service", "group",
    "server", "aggregation",
)  # fmt: skip


@transaction.atomic
def save_rule(access: Access, rule: Rule, at: datetime) -> Rule:
    """Store a validated rule as its next version. What waited under the old terms begins anew.

    Alerts end when it looks at something else: what they are of is not judged any more.
    """
    incidents.one_at_a_time()
    before = Rule.objects.select_for_update().filter(pk=rule.pk).values("version", *_LOOKS_AT)
    old = before.first()
    verb = "rule.changed" if rule.pk else "rule.added"
    rule.changed_at = at
    rule.version = old["version"] + 1 if old else 1
    rule.save()
    version_of(rule, at, access.user.pk if access.user else None).save()
    Pending.objects.filter(rule=rule).delete()
    Alert.objects.filter(rule=rule, resolved_at=None).update(held_since=None)
    if old and {**old, "version": 0} != {
        **Rule.objects.values("version", *_LOOKS_AT).get(pk=rule.pk),
        "version": 0,
    }:
        Remembered.objects.filter(rule=rule).delete()
        Rule.objects.filter(pk=rule.pk).update(learned_at=None)
        left = Alert.objects.filter(rule=rule, resolved_at=None)
        text = "Its rule looks at something else now."
        incidents.recover_all([incidents.Recovered(alert, None, text) for alert in left], at)
    audit(access, verb, rule, version=rule.version)
    wake(access.tenant.schema_name, at)
    return rule


def version_of(rule: Rule, at: datetime, by: int | None) -> RuleVersion:
    """What is kept of the rule as it is now; not saved yet."""
    return RuleVersion(
        rule=rule, name=rule.name, number=rule.version, at=at, by=by, body=rulefiles.body(rule)
    )


@transaction.atomic
def apply_rules(
    access: Access, wanted: Iterable[Rule], at: datetime, prune: bool = False
) -> list[Change]:
    """Make the rules as wanted, all or nothing, and say what that changed; again, it is nothing.

    With `prune` the rules that are not among them go.
    """
    incidents.one_at_a_time()
    found = rulefiles.diff(wanted, prune)
    for change in found:
        if change.verb == "remove":
            delete_rule(access, change.rule, at)
        else:
            save_rule(access, change.rule, at)
    return found


@transaction.atomic
def delete_rule(access: Access, rule: Rule, at: datetime) -> None:
    """Delete it; its open alerts end at the next evaluation."""
    incidents.one_at_a_time()
    audit(access, "rule.deleted", rule)
    rule.delete()
    wake(access.tenant.schema_name, at)


@transaction.atomic
def save_channel(access: Access, channel: NotificationChannel, at: datetime) -> dict[str, str]:
    """Store a validated channel; what was made for it, which is shown only this once."""
    incidents.one_at_a_time()
    verb = "channel.changed" if channel.pk else "channel.added"
    was_off = NotificationChannel.objects.filter(pk=channel.pk, enabled=False).exists()
    made = notifiers.made(channel.kind, channel.config)
    channel.config = {**channel.config, **made}
    channel.save()
    bounces.forget(channel)
    if not channel.enabled:
        fallback.mend(channel, at, f"The channel “{channel.name}” is switched off.")
    elif was_off:
        fallback.mend(channel, at, f"The channel “{channel.name}” is switched on again.")
    audit(access, verb, channel, kind=channel.kind)
    return made


@transaction.atomic
def delete_channel(access: Access, channel: NotificationChannel, at: datetime) -> None:
    """Delete it with what waits for it; that it failed is over."""
    fallback.mend(channel, at, f"The channel “{channel.name}” was deleted.")
    audit(access, "channel.deleted", channel)
    channel.delete()
