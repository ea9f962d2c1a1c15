"""Rules as YAML: what is written is read again, each mistake has its line, twice is as once."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.access import Access
from accounts.models import AuditEntry, Role
from alerts.models import Rule, RuleVersion
from alerts.rulebook import rulefiles, rules
from alerts.values.wording import read_span, span_exactly
from clouds.models import CloudGroup
from sentinel_site.kit.tenancy import in_schema
from tests.alerts.builders import MINUTE, make_rule, make_server

FILE = """\
rules:
- name: Disk full soon
  kind: forecast
  measurement: disk
  field: percent
  tags: {fstype: {not: [tmpfs]}}
  window: 1 d
  target: 100
  guard: 60
  comparison: '>='
  thresholds: {warning: 1 d, critical: 4 h}
- name: Busy
  group: Turin
  measurement: cpu
  field: percent
  aggregation: p95
  window: 5 min
  thresholds: {warning: 90}
  hold: 2 min
  recovery_hold: 1 min
"""


@pytest.fixture
def turin(acme):
    Rule.objects.all().delete()
    return CloudGroup.objects.create(name="Turin")


def apply(acme, text: str, **more):
    return rules.apply_rules(Access(acme, Role.OWNER), rulefiles.read(text), timezone.now(), **more)


def test_a_file_is_applied_once_and_again_changes_nothing(acme, turin):
    done = apply(acme, FILE)
    assert [(change.verb, change.key) for change in done] == [
        ("add", ("Disk full soon", "", "")),
        ("add", ("Busy", "Turin", "")),
    ]
    soon = Rule.objects.get(name="Disk full soon")
    assert soon.thresholds == {"warning": 86400, "critical": 14400}
    assert soon.window == timedelta(days=1)
    assert apply(acme, FILE) == []
    assert Rule.objects.get(name="Busy").version == 1
    assert AuditEntry.objects.filter(tenant=acme, verb="rule.added").count() >= 2


def test_what_is_exported_is_what_is_read(acme, turin):
    apply(acme, FILE)
    make_rule("Odd", group=None, tags={"a": ["1", "2"]}, recovery=0.5, hold=timedelta(seconds=90.5))
    make_rule("Odd", server=make_server(), enabled=False, advice="Look:\n- here\n- “there”")
    Rule.objects.create(
        name="Logs",
        kind="event",
        pattern=r"\d+: no",
        aggregation="absent",
        thresholds={"error": 90},
    )
    text = rulefiles.write(Rule.objects.all())
    assert rulefiles.diff(rulefiles.read(text), prune=True) == []
    Rule.objects.all().delete()
    apply(acme, text)
    assert rulefiles.write(Rule.objects.all()) == text


def test_the_default_rules_are_what_their_file_says(acme):
    text = rulefiles.write(Rule.objects.all())
    assert rulefiles.diff(rulefiles.read(text), prune=True) == []


def test_a_difference_names_the_fields_and_the_rules_that_would_go(acme, turin):
    apply(acme, FILE)
    make_rule("Mine")
    changed = FILE.replace("hold: 2 min", "hold: 3 min").replace("warning: 90", "warning: 91")
    found = rulefiles.diff(rulefiles.read(changed), prune=True)
    assert [str(change) for change in found] == [
        "~ Busy (Turin)\n    thresholds: warning 90 -> warning 91\n    hold: 2 min -> 3 min",
        "- Mine",
    ]
    assert Rule.objects.get(name="Busy").hold == 2 * MINUTE, "nothing was stored"
    apply(acme, changed)
    assert set(Rule.objects.values_list("name", flat=True)) == {"Busy", "Disk full soon", "Mine"}
    apply(acme, changed, prune=True)
    assert set(Rule.objects.values_list("name", flat=True)) == {"Busy", "Disk full soon"}
    assert list(RuleVersion.objects.filter(name="Busy").values_list("number", flat=True)) == [2, 1]


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("field: percent", "feild: percent", 5, "no field 'feild'"),
        ("window: 1 d", "window: soon", 7, "Write a span like"),
        ("warning: 1 d", "warning: 1 h", 11, "worse severity needs a lower limit"),
        ("group: Turin", "group: Rome", 13, "no cloud group 'Rome'"),
        ("aggregation: p95", "aggregation: mode", 16, "mode"),
        ("  target: 100\n", "", 2, "Say what it runs towards"),
        ("  hold: 2 min", "  hold: 2 min\n  hold: 3 min", 20, "given twice"),
        ("name: Busy", "name: [1]", 12, "Give text"),
        ("rules:", "rule:", 1, "Begin with"),
        ("group: Turin", "group: [Turin]", 13, "no cloud group"),
        ("target: 100", "target: 2026-02-31", 8, "can't be read"),
        ("target: 100", "target: 2026-02-30T99:00:00Z", 8, "can't be read"),
        ("target: 100", "target: 0b", 8, "target"),
        ("target: 100", f"target: 1{'0' * 400}", 8, "finite number"),
        ("target: 100", f"target: 1{':1' * 300}", 8, "at most 500 characters"),
        ("target: 100", f"target: 1{':1' * 300}.5", 8, "at most 500 characters"),
        ("name: Busy", 'name: "Bu\\0sy"', 12, "NUL"),
        ("name: Busy", f"name: [{'a,' * 150_000}]", 12, "too many values"),
        ("tags: {fstype", f"tags: {'[' * 40}{']' * 40}\n  tags: {{fstype", 6, "nested too deeply"),
        ("- name: Busy", "- &a name: Busy\n  service: *a", 13, "references"),
        ("tags: {fstype: {not: [tmpfs]}}", "tags: {fstype: {not: [tmpfs]}", 7, "no YAML"),
    ],
)
def test_each_mistake_is_told_with_its_line(acme, turin, old, new, line, said):
    with pytest.raises(rulefiles.BadRules) as caught:
        rulefiles.read(FILE.replace(old, new, 1))
    found = caught.value.members["mistakes"]
    assert (line, True) in [(one["line"], said in one["text"]) for one in found], found


def test_one_mistake_and_nothing_is_applied(acme, turin):
    with pytest.raises(rulefiles.BadRules):
        apply(acme, FILE.replace("aggregation: p95", "aggregation: mode"))
    assert not Rule.objects.exists()


def test_the_same_rule_twice_is_a_mistake(acme, turin):
    with pytest.raises(rulefiles.BadRules, match="in line 2 already"):
        rulefiles.read(FILE + FILE.removeprefix("rules:\n"))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.timedeltas(timedelta(), timedelta(days=14)))
def test_a_span_is_read_as_it_was_written(length):
    assert read_span(span_exactly(length)) == length


def test_the_command_line_exports_compares_and_applies(acme, turin, tmp_path):
    def run(*arguments: str) -> str:
        out = io.StringIO()
        call_command("rules", *arguments, "--tenant", acme.slug, stdout=out, stderr=io.StringIO())
        return out.getvalue()

    file = tmp_path / "rules.yaml"
    file.write_text(FILE)
    assert run("diff", str(file)) == "+ Disk full soon\n+ Busy (Turin)\n"
    assert not Rule.objects.exists()
    run("apply", str(file))
    assert run("diff", str(file)) == ""
    file.write_text(run("export"))
    assert run("diff", str(file), "--prune") == ""
    file.write_text("rules: [{name: X}]")
    with pytest.raises(CommandError, match="line 1"):
        run("apply", str(file))


def test_programs_do_the_same_and_viewers_only_look(acme, turin, alice, client):
    client.force_login(alice)
    url = "/o/acme/api/v1/rules/file/"
    tried = client.put(url, {"text": FILE, "dry_run": True}, content_type="application/json")
    assert [one["verb"] for one in tried.json()] == ["add", "add"]
    with in_schema(acme.schema_name):
        assert not Rule.objects.exists()
    client.put(url, {"text": FILE}, content_type="application/json")
    with in_schema(acme.schema_name):
        written = rulefiles.write(Rule.objects.all())
        rule = Rule.objects.get(name="Busy")
    assert client.get(url).content.decode() == written
    bad = client.put(url, {"text": "rules: 7"}, content_type="application/json")
    assert (bad.status_code, bad.json()["mistakes"][0]["line"]) == (422, 1)
    versions = client.get(f"/o/acme/api/v1/rules/{rule.pk}/versions/").json()
    assert [(one["number"], one["body"]["group"]) for one in versions] == [(1, "Turin")]


def test_the_page_compares_applies_and_names_mistakes(acme, turin, alice, client):
    client.force_login(alice)
    url = "/o/acme/rules/file/"
    compared = client.post(url, {"text": FILE, "compare": "1"}).content.decode()
    assert "2 rules would change" in compared
    with in_schema(acme.schema_name):
        assert not Rule.objects.exists()
    wrong = client.post(url, {"text": FILE.replace("p95", "mode"), "apply": "1"})
    assert wrong.status_code == 422
    assert "Line 16" in wrong.content.decode()
    assert client.post(url, {"text": FILE, "apply": "1"}).status_code == 302
    with in_schema(acme.schema_name):
        rule = Rule.objects.get(name="Busy")
    assert "Disk full soon" in client.get(url).content.decode()
    assert b"rules:" in client.get(f"{url}download/").content
    assert "alice" in client.get(f"/o/acme/rules/{rule.pk}/versions/").content.decode().lower()


def test_a_limit_that_nothing_lasts_is_written_as_it_is(acme):
    rule = make_rule(kind="silence", thresholds={"warning": 1e15})
    assert rulefiles.body(rule)["thresholds"] == {"warning": 10**15}
