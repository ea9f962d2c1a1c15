"""Forms of what is watched."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.utils import timezone

from agent_client.wire import LEVELS
from clouds.agent_settings import LONGEST, SHORTEST, Wanted
from clouds.models import AgentSettings, CloudGroup

SPANS = (
    ("", "for good"),
    ("1800", "for 30 min"),
    ("7200", "for 2 h"),
    ("86400", "for 1 day"),
)


class LevelsField(forms.CharField):
    """Levels as `default=warning, nova-api=info`; a level alone is the default."""

    def to_python(self, value: Any) -> Any:
        found = {}
        for part in (super().to_python(value) or "").split(","):
            name, equals, level = (word.strip() for word in part.partition("="))
            if not equals:
                name, level = "default", name
            if level:
                found[name] = level.lower()
        return found

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return ", ".join(f"{name}={level}" for name, level in value.items())
        return value


class SwitchesField(forms.CharField):
    """Collectors that are off, by name, separated by commas; `+name` is one that is on."""

    def to_python(self, value: Any) -> Any:
        names = (part.strip() for part in (super().to_python(value) or "").split(","))
        return {name.lstrip("+").strip(): name.startswith("+") for name in names if name}

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return ", ".join(f"+{name}" if on else name for name, on in value.items())
        return value


class AgentSettingsForm(forms.Form):
    """What a server's agent is asked for; an empty field leaves it as configured."""

    interval = forms.IntegerField(
        required=False,
        min_value=SHORTEST,
        max_value=LONGEST,
        label="Seconds between reports",
        help_text="Empty: as configured on the server.",
    )
    levels = LevelsField(
        required=False,
        max_length=2000,
        label="Log levels",
        help_text=f"info, or nova-api=info, default=error. One of {', '.join(LEVELS)}, and worse.",
    )
    levels_for = forms.ChoiceField(choices=SPANS, required=False, label="Those levels hold")
    collectors = SwitchesField(
        required=False,
        max_length=2000,
        label="Collectors to switch off",
        help_text="By name: swap, network. With + in front: on, though configured off.",
    )

    @classmethod
    def of(cls, row: AgentSettings | None, at: datetime) -> AgentSettingsForm:
        """The form as it stands; levels that have run out are no longer in it."""
        if row is None:
            return cls()
        left = (row.levels_until - at).total_seconds() if row.levels_until else None
        spans = [text for text, _ in SPANS if text and left is not None and left <= int(text)]
        return cls(
            initial={
                "interval": row.interval,
                "levels": {} if left is not None and left <= 0 else row.levels,
                "levels_for": "" if left is None else next(iter(spans), SPANS[-1][0]),
                "collectors": row.collectors,
            }
        )

    def wanted(self, at: datetime) -> Wanted:
        """What a valid form asks for."""
        given = self.cleaned_data
        seconds = given["levels_for"]
        return Wanted(
            interval=given["interval"],
            levels=given["levels"],
            levels_until=at + timedelta(seconds=int(seconds)) if seconds else None,
            collectors=given["collectors"],
        )

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or {}
        if not self.errors:
            now = timezone.now()
            for name, text in self.wanted(now).errors(now).items():
                self.add_error(name if name in self.fields else "levels_for", text)
        return given


class ClassifyForm(forms.Form):
    """The group and the role of a server."""

    group = forms.ModelChoiceField(
        queryset=CloudGroup.objects.order_by("name"),
        required=False,
        empty_label="In no group",
        label="Cloud group",
        help_text="Its rules, channels and maintenance hold from now on; what was, stays.",
    )
    role = forms.CharField(
        required=False, max_length=40, label="Role", help_text="controller, compute, storage"
    )
