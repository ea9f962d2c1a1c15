"""The form of an expected check-in."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms

from alerts.models import CheckIn
from alerts.pages.forms import SpanField


class CheckInForm(forms.ModelForm):  # type: ignore[type-arg]
    """A job, its schedule and where it runs."""

    period = SpanField(
        label="Every", required=False, help_text="1 h, 1 d; or by a cron expression instead."
    )
    grace = SpanField(label="May be late by", help_text="Also how long a run may take.")

    class Meta:
        model = CheckIn
        fields = ["name", "server", "period", "cron", "zone", "grace", "severity", "advice"]
        labels = {"cron": "Cron expression", "zone": "Time zone", "advice": "What to do"}
        widgets = {
            "advice": forms.Textarea(attrs={"rows": 2}),
            "zone": forms.TextInput(attrs={"list": "zones", "autocomplete": "off"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        servers: Any = self.fields["server"]
        servers.empty_label = "on no server in particular"

    def clean_period(self) -> timedelta | None:
        given: timedelta = self.cleaned_data["period"]
        return given or None

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        cleaned["cron"] = " ".join(cleaned.get("cron", "").split())
        return cleaned
