"""Forms of alerts: rules and notification channels."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms

from agent_client.wire import LEVELS
from alerts import notifiers
from alerts.models import NotificationChannel, Route, Rule, Severity
from alerts.values import selectors
from alerts.values.wording import LONGEST_SECONDS, BadSpan, read_span, span, span_exactly


class SpanField(forms.CharField):
    """A span as people write it: `20 s`, `5 min`, `1 h 30 min`; a bare number is seconds."""

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if not text:
            return timedelta()
        try:
            return read_span(text)
        except BadSpan as error:
            raise forms.ValidationError(str(error)) from error

    def prepare_value(self, value: Any) -> Any:
        return span(value) if isinstance(value, timedelta) else value


class LimitField(forms.CharField):
    """A number, or where limits are times a span as `6 h`; a bare number is seconds then."""

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if not text:
            return None
        try:
            return float(text.replace(",", "."))
        except ValueError:
            pass
        try:
            return read_span(text).total_seconds()
        except BadSpan:
            raise forms.ValidationError("Give a number, or a span like 6 h.") from None

    def prepare_value(self, value: Any) -> Any:
        return f"{value:.15g}" if isinstance(value, float | int) else value


class TagsField(forms.CharField):
    """Tags as people write selectors."""

    def to_python(self, value: Any) -> Any:
        try:
            return selectors.parse(super().to_python(value) or "")
        except selectors.BadSelector as error:
            raise forms.ValidationError(str(error)) from error

    def prepare_value(self, value: Any) -> Any:
        return selectors.write(value) if isinstance(value, dict) else value


class RuleForm(forms.ModelForm):  # type: ignore[type-arg]
    """A rule; its limits are one number per severity, at least one of them."""

    tags = TagsField(required=False, help_text="mount=/var, fstype!=tmpfs|overlay")
    window = SpanField(label="Over")
    hold = SpanField(label="For at least", required=False)
    recovery = LimitField(required=False)
    recovery_hold = SpanField(label="Over for at least", required=False)
    history = SpanField(label="Known for at least", required=False)
    no_data = forms.ChoiceField(choices=Rule.NoData.choices, required=False, label="Missing data …")
    aggregation = forms.ChoiceField(choices=Rule.Aggregation.choices, required=False)
    level = forms.ChoiceField(
        choices=[("", "Any level"), *((name, name.capitalize()) for name in LEVELS)],
        required=False,
        label="Level, or worse",
    )

    class Meta:
        model = Rule
        fields = [name for name in Rule.SAID if name != "thresholds"]
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
            self.fields[severity.value] = LimitField(
                label=severity.label,
                required=False,
                initial=self._limit(self.instance.thresholds.get(severity.value)),
            )
        self.initial["recovery"] = self._limit(self.instance.recovery)
        for name, empty in (("group", "all cloud groups"), ("server", "all servers")):
            places: Any = self.fields[name]
            places.empty_label = empty

    def _limit(self, value: float | None) -> float | str | None:
        """A limit of time as a span."""
        if value is None or not self.instance.counts_time or not 1 <= value <= LONGEST_SECONDS:
            return value
        return span_exactly(timedelta(seconds=value))

    def severity_fields(self) -> list[forms.BoundField]:
        return [self[severity.value] for severity in Severity]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        for name in ("no_data", "aggregation"):  # what is not shown stays as it is
            cleaned[name] = cleaned.get(name) or getattr(self.instance, name)
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
        before = self.instance.config
        kept = notifiers.kept(self.instance.kind, before, given)
        for field in self.notifier.fields if self.notifier else ():
            if field.secret and field.name in before and field.name not in {**kept, **given}:
                text = f"Give the {field.label} again: it would be sent to another host."
                self.add_error(f"config_{field.name}", text)
        self.instance.config = {**_shown(self.notifier, before), **kept, **given}
        if cleaned.get("most_a_minute") is None and "most_a_minute" not in self.errors:
            cleaned["most_a_minute"] = self.instance.most_a_minute
        return cleaned

    def _update_errors(self, errors: Any) -> None:
        """What the notifier says of the configuration belongs to its first field."""
        found = getattr(errors, "error_dict", {})
        if "config" in found and self.notifier:
            self.add_error(f"config_{self.notifier.fields[0].name}", found.pop("config"))
        super()._update_errors(errors)  # type: ignore[misc]


def _shown(notifier: notifiers.Notifier | None, config: dict[str, Any]) -> dict[str, Any]:
    """What of a configuration is no secret."""
    secret = {field.name for field in notifier.fields if field.secret} if notifier else set()
    return {name: value for name, value in config.items() if name not in secret}


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
