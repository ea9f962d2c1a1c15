"""The knowledge base: each line is explained by its own entry, and a healthy cloud's by none."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.template.loader import render_to_string

from alerts import knowledge
from alerts.knowledge import BadKnowledge, Entry
from tests.alerts.builders import NOON

ENTRIES = knowledge.entries()
EXAMPLES = [(entry, example) for entry in ENTRIES for example in entry.examples]

ORDINARY = [
    ("nova-conductor", "Starting 2 workers"),
    ("nova-compute", "Took 24.81 seconds to build instance."),
    (
        "placement",
        '127.0.0.1 "GET /resource_providers/85d2b5d9-eddb-4385-9848-611c40b32d35/allocations"'
        " status: 200 len: 151 microversion: 1.0",
    ),
    (
        "nova-api",
        '127.0.0.1 "GET /v2.1/servers/detail?all_tenants=True" status: 200 len: 1487'
        " microversion: 2.1 time: 0.344425",
    ),
    (
        "nova-api",
        "[pid: 17371|app: 0|req: 16/28] 127.0.0.1 () {32 vars in 644 bytes}"
        " [Sun Nov 22 10:30:55 2026] GET /v2.1/servers/detail?all_tenants=True => generated 1487"
        " bytes in 349 msecs (HTTP/1.1 200) 7 headers in 317 bytes (1 switches on core 0)",
    ),
    (
        "glance-api",
        '127.0.0.1 - - [22/Nov/2026 10:30:16] "GET /v2/images?limit=200 HTTP/1.1" 200 1183',
    ),
    (
        "neutron-api",
        "MySQL server mode set to STRICT_TRANS_TABLES,NO_ZERO_IN_DATE _check_effective_sql_mode"
        " /usr/lib/python3/dist-packages/oslo_db/sqlalchemy/engines.py:342",
    ),
    ("nova-api", "Respawned uWSGI worker 1 (new pid: 15642)"),
    (
        "rabbitmq-server",
        "closing AMQP connection <0.2786.0> (127.0.0.1:50098 -> 127.0.0.1:5672 -"
        " neutron-l3-agent:2921:297292fd, vhost: '/', user: 'openstack'):",
    ),
    ("keystone", "Truncating password to algorithm specific maximum length 72 characters."),
    ("", ""),
]

GOOD = """
- id: one
  title: One
  about: [rabbitmq]
  evidence: seen
  match: [one went wrong]
  meaning: It went wrong.
  causes: [A cause.]
  check: [{run: "true", see: nothing}]
  do: [Do it.]
  examples: [{service: nova-api, line: one went wrong}]
"""


def test_there_are_sixty_entries_and_more_each_with_an_id_of_its_own() -> None:
    assert len(ENTRIES) >= 60
    assert len({entry.id for entry in ENTRIES}) == len(ENTRIES)
    assert len({entry.title for entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize(
    ("entry", "example"), EXAMPLES, ids=[f"{e.id}-{n}" for n, (e, _) in enumerate(EXAMPLES)]
)
def test_a_line_is_known_by_its_own_entry_and_no_other(entry, example) -> None:
    matched = [one.id for one in knowledge.matching(example.service, example.line)]
    assert matched == [entry.id]
    assert knowledge.explain(example.service, example.line) is entry


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_an_entry_proves_each_of_its_patterns_and_refuses_its_counterexamples(entry) -> None:
    for pattern in entry.patterns:
        assert any(pattern.matches(example.line) for example in entry.examples), pattern.text
    for other in entry.counterexamples:
        assert not entry.matches(other.service, other.line)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_an_entry_speaks_in_whole_sentences(entry) -> None:
    for text in (entry.meaning, *entry.causes, *entry.actions):
        assert text.endswith("."), text
    assert not entry.title.endswith(".")


@pytest.mark.parametrize(("service", "message"), ORDINARY)
def test_a_line_of_a_healthy_cloud_is_nothing_known(service, message) -> None:
    assert list(knowledge.matching(service, message)) == []


def test_of_a_traceback_the_first_line_goes_before_those_below() -> None:
    below = "Traceback (most recent call last):\nOSError: [Errno 28] No space left on device"
    first = "Failed reporting state!"
    found = knowledge.explain("neutron-l3-agent", f"{first}\n{below}")
    assert _id(found) == "neutron-report-failed"
    assert _id(knowledge.explain("nova-api", f"Unexpected exception\n{below}")) == (
        "system-disk-full"
    )


def test_the_end_of_an_endless_message_is_read_and_its_middle_is_not() -> None:
    known = "No space left on device"
    assert _id(knowledge.explain("nova-api", "x" * 100_000 + known)) == "system-disk-full"
    assert knowledge.explain("nova-api", f"{'x' * 50_000}{known}{'x' * 50_000}") is None


def test_what_another_service_says_is_not_taken_for_it() -> None:
    assert _id(knowledge.explain("mariadb", "Too many connections")) == (
        "mariadb-too-many-connections"
    )
    assert knowledge.explain("sshd", "Too many connections") is None


def test_many_lines_are_explained_by_the_most_frequent_entries_each_once() -> None:
    full = ("glance-api", "OSError: [Errno 28] No space left on device")
    lost = ("nova-compute", "Connection event '0' reason 'Connection to libvirt lost: 1'")
    quota = ("nova-api", "Quota exceeded for cores: Requested 8, but already used 16 of 20 cores")
    lines = [full, lost, lost, quota, lost, full, ("nova-api", "Starting 2 workers")]
    found = knowledge.explain_all(lines, most=2)
    assert [(one.entry.id, one.count) for one in found] == [
        ("libvirt-connection-lost", 3),
        ("system-disk-full", 2),
    ]


@pytest.mark.parametrize(
    ("was", "becomes", "complaint"),
    [
        ("  title: One\n", "", "one: title missing"),
        ("title: One", "title: ''", "one: title must be a text"),
        ("title: One", "title: One\n  colour: red", "one: colour not known"),
        ("[rabbitmq]", "[rabbit]", "one: about: rabbit not among the dependencies"),
        ("evidence: seen", "evidence: heard", "one: evidence is one of"),
        ("evidence: seen", "evidence: source", "one: evidence is one of seen, public"),
        ("  examples: [{service: nova-api, line: one went wrong}]\n", "", "one: examples missing"),
        ("[{service: nova-api, line: one went wrong}]", "[]", "one: examples must be a list that"),
        ("id: one", "id: One_1", "One_1: an id has lower-case letters"),
        ("[one went wrong]", "[{text: one, pattern: 'one.*wrong'}]", "one: match: bound what"),
        ("[one went wrong]", "[{text: one, pattern: '(one'}]", "one: match: missing )"),
        ("[one went wrong]", "[]", "one: match must be a list that is not empty"),
        ('{run: "true", see: nothing}', "look", "one: check must be a mapping"),
        ("  do:", "  releases: {first: 2025.1}\n  do:", "one: releases: first must be a text"),
        ("- id: one", "- id: one\n  id: [", "bad.yaml: this is not YAML"),
        (GOOD, "one: two", "bad.yaml: a list of entries is needed"),
        (GOOD, GOOD + GOOD, "bad.yaml, one: the id is taken in bad.yaml"),
    ],
)
def test_a_fault_names_its_file_and_entry(tmp_path: Path, was, becomes, complaint) -> None:
    assert GOOD.count(was) == 1
    (tmp_path / "bad.yaml").write_text(GOOD.replace(was, becomes))
    with pytest.raises(BadKnowledge) as raised:
        knowledge.read_folder(tmp_path)
    assert str(raised.value).startswith("bad.yaml")
    assert complaint in str(raised.value)


def test_a_shown_line_that_is_known_says_so_and_another_does_not() -> None:
    line = {"at": NOON, "level": "error", "service": "l3", "message": "Starting 2 workers"}
    assert "Known:" not in render_to_string("metrics/_lines.html", {"events": [line]})
    line["message"] = "Failed reporting state!"
    shown = render_to_string("metrics/_lines.html", {"events": [line]})
    assert "Known: A network agent can" in shown
    assert "openstack network agent list" in shown


def _id(entry: Entry | None) -> str:
    assert entry is not None
    return entry.id
