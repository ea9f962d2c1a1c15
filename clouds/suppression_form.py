"""The form of maintenance and blackout: of what, why, when, and how it comes again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django import forms

from clouds import queries, recurrences
from clouds.models import CloudGroup, Recurrence, Server, Suppression, SuppressionKind
from clouds.muting import Wanted
from clouds.suppression import Repeat, Target

EVERYTHING = "all"
OPEN_END, AT_A_TIME = "open", "at"
SPANS = (
    ("900", "15 min"),
    ("1800", "30 min"),
    ("3600", "1 h"),
    ("7200", "2 h"),
    ("14400", "4 h"),
    ("28800", "8 h"),
    ("86400", "1 day"),
)
REPEATS = (
    ("", "no, once"),
    ("FREQ=DAILY", "every day"),
    ("FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR", "Monday to Friday"),
    ("FREQ=WEEKLY", "every week"),
    ("FREQ=MONTHLY", "every month"),
    ("rule", "by a rule"),
)


class LocalTime(forms.DateTimeInput):
    """A time of the form's time zone, as browsers offer it."""

    input_type = "datetime-local"

    def __init__(self) -> None:
        super().__init__(format="%Y-%m-%dT%H:%M")


class SuppressionForm(forms.Form):
    """New, or with other terms. Times are of the time zone that the form names."""

    kind = forms.ChoiceField(
        choices=[
            ("maintenance", "Maintenance: planned work, uptime does not count it"),
            ("blackout", "Blackout: someone is at it, uptime counts it"),
        ],
        widget=forms.RadioSelect,
        label="What",
    )
    where = forms.ChoiceField(label="Of what")
    reason = forms.CharField(max_length=300, label="Why", strip=True)
    begins = forms.CharField(
        required=False, label="Begins", help_text="Empty: now.", widget=LocalTime()
    )
    ends = forms.ChoiceField(
        choices=[*SPANS, (AT_A_TIME, "at a time"), (OPEN_END, "when I end it")],
        label="Ends after",
        initial="3600",
    )
    until = forms.CharField(required=False, label="Ends at", widget=LocalTime())
    again = forms.ChoiceField(choices=REPEATS, required=False, label="Again")
    rule = forms.CharField(
        required=False,
        max_length=200,
        label="Rule",
        help_text="An RRULE: FREQ=MONTHLY;BYDAY=1SU is every first Sunday of a month.",
    )
    zone = forms.CharField(
        max_length=64,
        label="Time zone",
        initial="UTC",
        help_text="Its name: Europe/Berlin.",
        widget=forms.TextInput(attrs={"list": "zones", "autocomplete": "off"}),
    )

    def __init__(
        self, *args: Any, now: datetime, row: Suppression | Recurrence | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.now, self.row = now, row
        if row is not None:
            del self.fields["kind"], self.fields["where"]
        else:
            self.fields["where"].choices = _targets()  # type: ignore[attr-defined]
        if isinstance(row, Suppression):
            del self.fields["again"], self.fields["rule"]
            if row.since <= now:
                del self.fields["begins"]

    @classmethod
    def of(cls, row: Suppression | Recurrence, now: datetime, zone: str) -> SuppressionForm:
        """The form as the row stands, in this time zone; a recurrence has its own."""
        given: dict[str, Any] = {"reason": row.reason}
        if isinstance(row, Recurrence):
            zone = row.zone
            simple = row.rule in dict(REPEATS)
            seconds = f"{row.lasts.total_seconds():.0f}"
            given |= {
                "begins": _local(row.begins, zone),
                "again": row.rule if simple else "rule",
                "rule": "" if simple else row.rule,
                "ends": seconds if seconds in dict(SPANS) else AT_A_TIME,
                "until": _local(row.begins + row.lasts, zone),
            }
        else:
            given |= {
                "begins": _local(row.since, zone),
                "ends": OPEN_END if row.until is None else AT_A_TIME,
                "until": _local(row.until, zone) if row.until else "",
            }
        return cls(initial={**given, "zone": zone}, now=now, row=row)

    def target(self) -> Target:
        """What a valid form names."""
        named, _, pk = self.cleaned_data["where"].partition(":")
        if named == EVERYTHING:
            return None
        rows: Any = Server.objects if named == "server" else CloudGroup.objects
        found: Server | CloudGroup = rows.get(pk=int(pk))
        return found

    def wanted(self) -> Wanted:
        """What a valid form asks for."""
        given = self.cleaned_data
        return Wanted(
            kind=SuppressionKind(given["kind"] if self.row is None else self.row.kind),
            reason=given["reason"],
            since=given.get("since"),
            until=None if given.get("repeat") else given["end"],
            repeat=given.get("repeat"),
        )

    def clean_zone(self) -> str:
        zone = str(self.cleaned_data["zone"])
        if not recurrences.is_zone(zone):
            raise forms.ValidationError("There is no such time zone; it is named as Europe/Berlin.")
        return zone

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or {}
        if self.errors:
            return given
        zone = given["zone"]
        given["since"] = self._time("begins", zone) if given.get("begins") else None
        begins = given["since"] or self.now
        ends = given["ends"]
        given["end"] = None
        if ends == AT_A_TIME:
            given["end"] = self._time("until", zone)
            if given["end"] is None:
                self.add_error("until", "Say when it ends.")
        elif ends != OPEN_END:
            given["end"] = begins + timedelta(seconds=int(ends))
        rule = given.get("again") or ""
        if isinstance(self.row, Recurrence) and not rule:
            self.add_error("again", "Say how it comes again; to have it no more, end it.")
        if rule and not self.errors:
            self._repeat(given, rule, zone, begins)
        elif given["end"] is not None and given["end"] <= max(begins, self.now):
            self.add_error("until" if ends == AT_A_TIME else "ends", "It must end after it begins.")
        return given

    def _repeat(self, given: dict[str, Any], rule: str, zone: str, begins: datetime) -> None:
        if given["end"] is None:
            self.add_error("ends", "What comes again must end by itself: say how long it lasts.")
            return
        given["repeat"] = Repeat(
            rule=given["rule"] if rule == "rule" else rule, zone=zone, lasts=given["end"] - begins
        )
        try:
            recurrences.check(given["repeat"].rule, zone, begins, given["repeat"].lasts)
        except recurrences.NotARule as error:
            self.add_error("rule" if rule == "rule" else "again", str(error))

    def _time(self, name: str, zone: str) -> datetime | None:
        text = self.cleaned_data[name]
        if not text:
            return None
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            self.add_error(name, "Write a time as 2027-03-28T02:30.")
            return None
        return at.replace(tzinfo=at.tzinfo or ZoneInfo(zone)).astimezone(UTC)


def _local(at: datetime, zone: str) -> str:
    return f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%dT%H:%M}"


def _targets() -> list[Any]:
    return [
        (EVERYTHING, "All servers"),
        ("Cloud groups", [(f"group:{one.pk}", one.name) for one in queries.groups()]),
        ("Servers", [(f"server:{one.pk}", one.host) for one in queries.fleet()]),
    ]
