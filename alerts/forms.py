"""Forms of alerts: rules and notification channels."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django import forms

from agent_client.wire import LEVELS
from alerts import notifiers
from alerts.models import NotificationChannel, Route, Rule, Severity
from alerts.wording import span

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(min|sec|s|m|h|d)?\s*")
_UNITS = {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


class SpanField(forms.CharField):
    """A span as people write it: `20 s`, `5 min`, `1 h 30 min`; a bare number is seconds."""

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if not text:
            return timedelta()
        parts = list(_PART.finditer(text.lower()))
        if not parts or "".join(part[0] for part in parts) != text.lower():
            raise forms.ValidationError("Write a span like 20 s, 5 min or 1 h.")
        try:
            return timedelta(seconds=sum(float(part[1]) * _UNITS[part[2] or ""] for part in parts))
        except OverflowError:
            raise forms.ValidationError("That is longer than anything lasts.") from None

    def prepare_value(self, value: Any) -> Any:
        return span(value) if isinstance(value, timedelta) else value


class TagsField(forms.CharField):
    """Tags as `name=value`, separated by commas."""

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        pairs = [part.partition("=") for part in (text or "").split(",") if part.strip()]
        if not all(name.strip() and equals for name, equals, _ in pairs):
            raise forms.ValidationError("Write tags as mount=/var, fstype=ext4.")
        return {name.strip(): tag.strip() for name, _, tag in pairs}

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return ", ".join(f"{name}={tag}" for name, tag in value.items())
        return value


class RuleForm(forms.ModelForm):  # type: ignore[type-arg]
    """A rule; its limits are one number per severity, at least one of them."""

    tags = TagsField(required=False, help_text="mount=/var")
    window = SpanField(label="Over")
    hold = SpanField(label="For at least", required=False)
    level = forms.ChoiceField(
        choices=[("", "Any level"), *((name, name.capitalize()) for name in LEVELS)],
        required=False,
        label="Level, or worse",
    )

    class Meta:
        model = Rule
        fields = [
            "name",
            "kind",
            "enabled",
            "measurement",
            "field",
            "tags",
            "aggregation",
            "words",
            "level",
            "service",
            "window",
            "comparison",
            "recovery",
            "hold",
            "group",
            "server",
            "advice",
        ]
        help_texts = {
            "advice": "What to do. {service} and {server} become what the alert is about.",
        }
        widgets = {
            "advice": forms.Textarea(attrs={"rows": 3}),
            "measurement": forms.TextInput(attrs={"list": "measurements", "autocomplete": "off"}),
            "field": forms.TextInput(attrs={"list": "fields", "autocomplete": "off"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for severity in Severity:
            self.fields[severity.value] = forms.FloatField(
                label=severity.label,
                required=False,
                initial=self.instance.thresholds.get(severity.value),
            )

    def severity_fields(self) -> list[forms.BoundField]:
        return [self[severity.value] for severity in Severity]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        self.instance.thresholds = {
            severity.value: cleaned[severity.value]
            for severity in Severity
            if cleaned.get(severity.value) is not None
        }
        return cleaned

    def _update_errors(self, errors: Any) -> None:
        """What the model says of `thresholds` belongs to the form as a whole."""
        found = getattr(errors, "error_dict", {})
        if "thresholds" in found:
            self.add_error(None, found.pop("thresholds"))
        super()._update_errors(errors)  # type: ignore[misc]


class ChannelForm(forms.ModelForm):  # type: ignore[type-arg]
    """A channel of one kind; the fields of its configuration are the notifier's."""

    class Meta:
        model = NotificationChannel
        fields = [
            "name",
            "enabled",
            "least_severity",
            "most_a_minute",
            "tells_acknowledged",
            "fallback",
        ]
        labels = {
            "most_a_minute": "Most messages a minute",
            "tells_acknowledged": "Tell who takes it",
            "fallback": "When it fails, tell",
        }

    def __init__(self, *args: Any, kind: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.instance.kind = kind
        others: Any = self.fields["fallback"]
        others.queryset = NotificationChannel.objects.exclude(pk=self.instance.pk)
        others.empty_label = "the next one that works"
        self.fields["most_a_minute"].required = False
        self.notifier = notifiers.by_name(kind)
        for field in self.notifier.fields if self.notifier else ():
            kept = self.instance.config.get(field.name, "")
            self.fields[f"config_{field.name}"] = forms.CharField(
                label=field.label,
                help_text="Leave empty to keep the present one."
                if field.secret and kept
                else field.help,
                initial="" if field.secret else kept,
                required=not (field.make or (field.secret and kept)),
            )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        given = {
            name.removeprefix("config_"): value
            for name, value in cleaned.items()
            if name.startswith("config_") and value
        }
        self.instance.config = {**self.instance.config, **given}
        if cleaned.get("most_a_minute") is None and "most_a_minute" not in self.errors:
            cleaned["most_a_minute"] = self.instance.most_a_minute
        return cleaned

    def _update_errors(self, errors: Any) -> None:
        """What the notifier says of the configuration belongs to its first field."""
        found = getattr(errors, "error_dict", {})
        if "config" in found and self.notifier:
            self.add_error(f"config_{self.notifier.fields[0].name}", found.pop("config"))
        super()._update_errors(errors)  # type: ignore[misc]


#: As many steps as the form offers; the API takes more.
STEPS = 3


_DAYS = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")


class RouteForm(forms.ModelForm):  # type: ignore[type-arg]
    """A route with its steps, the first of them at once."""

    services = forms.CharField(
        required=False, help_text="Names as nova-*, separated by commas. Empty: all."
    )
    days = forms.MultipleChoiceField(
        choices=[(str(number), name) for number, name in enumerate(_DAYS, 1)],
        widget=forms.CheckboxSelectMultiple,
        label="Working days",
    )
    repeat = SpanField(
        required=False,
        label="Tell again every",
        help_text="Until somebody has it. Empty: told once.",
    )

    class Meta:
        model = Route
        fields = [
            "name",
            "position",
            "enabled",
            "least_severity",
            "groups",
            "services",
            "hours",
            "days",
            "begins",
            "ends",
            "zone",
            "repeat",
            "goes_on",
        ]
        labels = {
            "position": "Order",
            "groups": "Cloud groups",
            "begins": "Work begins",
            "ends": "Work ends",
            "zone": "Time zone",
            "goes_on": "Ask the routes after it, too",
        }
        widgets = {
            "groups": forms.CheckboxSelectMultiple,
            "begins": forms.TimeInput(format="%H:%M", attrs={"type": "time"}),
            "ends": forms.TimeInput(format="%H:%M", attrs={"type": "time"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["services"] = ", ".join(self.instance.services)
        self.initial["days"] = list(self.instance.days)
        steps = list(self.instance.steps.all()) if self.instance.pk else []
        for number in range(STEPS):
            step = steps[number] if number < len(steps) else None
            if number:
                self.fields[f"after_{number}"] = SpanField(
                    label="If nobody has it after",
                    required=False,
                    initial=step.after if step else None,
                )
            self.fields[f"channels_{number}"] = forms.ModelMultipleChoiceField(
                NotificationChannel.objects.all(),
                label="also tell" if number else "Tell at once",
                required=False,
                widget=forms.CheckboxSelectMultiple,
                initial=[one.pk for one in step.channels.all()] if step else [],
            )

    def clean_services(self) -> list[str]:
        return [part.strip() for part in self.cleaned_data["services"].split(",") if part.strip()]

    def clean_days(self) -> str:
        return "".join(sorted(self.cleaned_data["days"]))

    def clean_repeat(self) -> timedelta | None:
        return self.cleaned_data["repeat"] or None

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        seen = {timedelta()}
        for number in range(1, STEPS):
            after, channels = cleaned.get(f"after_{number}"), cleaned.get(f"channels_{number}")
            if channels and not after:
                self.add_error(f"after_{number}", "Say after how long, as in 10 min.")
            elif after and after in seen:
                self.add_error(f"after_{number}", "Another step has this time.")
            if after:
                seen.add(after)
        return cleaned

    def steps(self) -> list[tuple[timedelta, list[int]]]:
        """Times and channels of the steps that were given."""
        cleaned = self.cleaned_data
        found = [(timedelta(), [one.pk for one in cleaned["channels_0"]])]
        for number in range(1, STEPS):
            after = cleaned.get(f"after_{number}")
            if after:
                found.append((after, [one.pk for one in cleaned[f"channels_{number}"]]))
        return found
