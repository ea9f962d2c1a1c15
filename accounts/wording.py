"""What people and keys changed, in words; the audit log itself keeps verbs and plain values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

#: Every verb that is written to the audit log.
VERBS: Mapping[str, str] = {
    "channel.added": "Added a notification channel",
    "channel.changed": "Changed a notification channel",
    "channel.deleted": "Deleted a notification channel",
    "channel.left": "Stopped the mail of a notification channel by its link",
    "channel.tested": "Sent a test to a notification channel",
    "checkin.added": "Added an expected check-in",
    "checkin.changed": "Changed an expected check-in",
    "checkin.deleted": "Deleted an expected check-in",
    "checkin.paused": "Paused an expected check-in",
    "group.added": "Added a cloud group",
    "group.changed": "Changed a cloud group",
    "group.deleted": "Deleted a cloud group",
    "key.issued": "Issued a key",
    "key.revoked": "Revoked a key",
    "member.invitation-withdrawn": "Withdrew an invitation",
    "member.invited": "Invited somebody",
    "member.joined": "Joined",
    "member.removed": "Removed a member",
    "member.role": "Gave a member another role",
    "notification.resent": "Had a notification sent again",
    "route.added": "Added a route",
    "route.changed": "Changed a route",
    "route.deleted": "Deleted a route",
    "rule.added": "Added a rule",
    "rule.changed": "Changed a rule",
    "rule.deleted": "Deleted a rule",
    "server.blackout": "Put a server into blackout",
    "server.blackout-ended": "Ended the blackout of a server",
    "server.classified": "Put a server into its group",
    "server.maintenance": "Put a server into maintenance",
    "server.maintenance-ended": "Ended the maintenance of a server",
    "server.removed": "Removed a server",
    "server.settings": "Changed what a server's agent does",
    "suppression.blackout": "Began or planned a blackout",
    "suppression.changed": "Changed a maintenance or blackout",
    "suppression.ended": "Ended a maintenance or blackout",
    "suppression.maintenance": "Began or planned a maintenance",
}

_SCOPES = {
    "enrol": "a token that enrols one server",
    "ingest": "to send reports",
    "read": "to read",
    "admin": "to administer",
}
_KINDS = {
    "alerta": "Alerta",
    "email": "e-mail",
    "slack": "Slack",
    "slack-app": "Slack app",
    "webhook": "webhook",
}


def done(verb: str) -> str:
    """The verb as people say it."""
    return VERBS.get(verb) or verb.replace(".", " ").replace("-", " ").capitalize()


def details(verb: str, data: Mapping[str, Any]) -> str:
    """What else was noted, as far as it helps a reader; may be empty."""
    said = [_detail(name, data[name]) for name in _TOLD if data.get(name)]
    if verb == "server.settings":
        said += _settings(data)
    return ", ".join(said)


_TOLD = ("name", "scope", "role", "kind", "reason", "rule", "since", "until")


def _detail(name: str, value: Any) -> str:
    text = str(value)
    if name == "scope":
        return _SCOPES.get(text, text)
    if name == "role":
        return f"as {text}"
    if name == "kind":
        return _KINDS.get(text, text)
    if name in ("since", "until"):
        return f"{'from' if name == 'since' else 'until'} {_moment(text)}"
    if name == "rule":
        return text
    return f"“{text}”"


def _settings(data: Mapping[str, Any]) -> list[str]:
    """What an agent was asked for; nothing of it is its own configuration again."""
    said = []
    if data.get("interval"):
        said.append(f"reports every {data['interval']:g} s")
    levels, collectors = data.get("levels") or {}, data.get("collectors") or {}
    said += [f"{name} from {level} on" for name, level in sorted(levels.items())]
    said += [f"{name} {'on' if on else 'off'}" for name, on in sorted(collectors.items())]
    return said or ["as its own configuration says"]


def _moment(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return text
