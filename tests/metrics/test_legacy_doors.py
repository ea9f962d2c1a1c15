"""The original agents 0.5 and 1.1, served to the letter, with requests recorded from them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
import zstandard
from django.contrib import admin
from django.test import RequestFactory
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts import keys
from accounts.models import Key, User
from clouds.models import Server, Service
from metrics import events, ingest, isolation, knocks, queries
from metrics.admin import KnockAdmin
from metrics.doors import legacy
from metrics.doors.body import NotJSON, TooDeep
from metrics.events import Matcher
from metrics.models import Knock
from tests.metrics.builders import AGENT, MINUTE, SECOND, now, post, recorded, request

KEYS_OF = "acct-key-0001"


def push(path: str, given: dict[str, Any], key: str) -> Any:
    return post(path, json.dumps({**given, "account_key": key}).encode())


def replay(example: dict[str, Any], key: str) -> Any:
    """Send a recorded request as it was, but for the account."""
    content = json.dumps(example["json"]).replace(KEYS_OF, key).encode()
    headers = {
        name: value
        for name, value in example["headers"]
        if name not in ("Host", "Content-Length", "Content-Type", "Connection")
    }
    return post(example["path"], content, **headers)


def newest(tenant: Any) -> Any:
    server = Server.objects.get()
    return queries.latest(tenant.pk, [server.pk])[server.pk]


def value(tenant: Any, measurement: str, name: str, **tags: str) -> float | None:
    found = newest(tenant).get((measurement, tuple(sorted(tags.items()))), {}).get(name)
    return found.value if found else None


# -- rule 1: the paths --------------------------------------------------------

SYSTEM = "metrics-system-1.1.json"


@pytest.mark.parametrize("path", ["/metrics", "//metrics", "/metrics/", "///metrics//"])
def test_metrics_is_served_at_the_root_whatever_the_slashes(acme, ingest_key, path):
    answer = replay({**recorded(SYSTEM), "path": path}, ingest_key)
    assert answer.status_code == 202


@pytest.mark.parametrize("path", ["/logs", "//logs", "/logs/"])
def test_logs_is_served_at_the_root_whatever_the_slashes(acme, ingest_key, path):
    example = recorded("logs-1.1.json")[0]
    assert replay({**example, "path": path}, ingest_key).status_code == 202


def test_no_header_is_needed(acme, ingest_key):
    content = json.dumps({**recorded(SYSTEM)["json"], "account_key": ingest_key}).encode()
    answer = request("POST", "/metrics", content, headers={"Content-Type": ""})
    assert answer.status_code == 202


@pytest.mark.parametrize("path", ["/metrics", "/logs"])
def test_zstd_is_unpacked_within_the_bound_of_what_is_nobodys_yet(db, path):
    packed = {"Content-Encoding": "zstd"}
    answer = post(path, zstandard.compress(b'{"account_key": "nobody"}'), **packed)
    assert answer.status_code == 401
    assert answer["Accept-Encoding"] == "zstd, gzip, identity"
    bomb = zstandard.compress(b"[" + b" " * 3 * 1024**2 + b"]")
    assert post(path, bomb, **packed).status_code == 413


def test_behind_https_the_doors_still_do_not_redirect(acme, ingest_key, settings):
    read = "import json; from sentinel_site import settings as s; print(json.dumps(s.{}))"
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_REDIRECT_EXEMPT = json.loads(
        subprocess.run(
            [sys.executable, "-c", read.format("SECURE_REDIRECT_EXEMPT")],
            env={**os.environ, "PUBLIC_URL": "https://watch.example.org"},
            cwd=settings.BASE_DIR,
            capture_output=True,
            check=True,
        ).stdout
    )
    assert replay(recorded(SYSTEM), ingest_key).status_code == 202
    assert replay({**recorded(SYSTEM), "path": "//metrics"}, ingest_key).status_code == 202


def test_an_unknown_plugin_is_not_found_and_tricks_lead_nowhere(db):
    example = recorded("plugin-download-1.1.json")
    answer = request("GET", example["path"])
    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/problem+json"
    assert int(answer["Content-Length"]) == len(answer.content)
    for trick in ("../../etc/passwd-1.zip", "..%2f..%2fx-1.zip", "a-1.zip/../../x", "-1.zip"):
        answer = request(
            "GET", f"/plugins/download/{trick}", headers={"Accept": "application/json"}
        )
        assert answer.status_code == 404


# -- rule 2: the account ------------------------------------------------------


@pytest.mark.parametrize(
    "account", ["acct-key-0001", "", "snt_abcdefabcdef_" + "x" * 40, "x" * 10_000, "\0"]
)
def test_an_unknown_account_is_refused_and_registers_nothing(acme, account):
    example = recorded(SYSTEM)
    assert push("/metrics", example["json"], account).status_code == 401
    assert not Server.objects.exists()


@pytest.mark.parametrize("path", ["/metrics", "/logs", "/api/v1/enrol"])
def test_little_is_parsed_before_it_is_known_whose_it_is(db, path):
    assert post(path, b"[" + b"[]," * 1_000_000 + b"[]]").status_code == 413


def test_an_unknown_account_is_counted_and_shown_without_its_key(db):
    example = recorded(SYSTEM)["json"]
    for _ in range(3):
        push("/metrics", example, "acct-key-0001")
    with isolation.only(knocks.NOBODY):
        knock = Knock.objects.get()
    assert (knock.kind, knock.count, knock.host) == ("account", 3, example["server_name"])
    assert knock.hint == "acct-key…"
    assert "0001" not in knock.hint


def test_our_staff_sees_who_knocks_with_an_unknown_account_and_nothing_of_tenants(
    acme, ingest_key, settings
):
    push("/metrics", recorded(SYSTEM)["json"], "acct-key-0001")
    replay(recorded("metrics-plugin-docker-1.1.json"), ingest_key)
    staff = User.objects.create_user("staff@example.org", "x", is_staff=True, is_superuser=True)
    settings.ROOT_URLCONF = settings.PUBLIC_SCHEMA_URLCONF
    asked = RequestFactory().get("/staff/metrics/knock/")
    asked.user = staff
    shown = KnockAdmin(Knock, admin.site).changelist_view(asked).content.decode()
    assert "acct-key…" in shown
    assert "5b8a7c1e" not in shown


def test_a_read_key_or_a_servers_own_key_is_no_account(acme, read_key, server_key):
    example = recorded(SYSTEM)["json"]
    assert push("/metrics", example, read_key).status_code == 403
    assert push("/metrics", example, server_key).status_code == 403
    assert not Server.objects.exists()


def test_knocks_of_nobody_are_bounded(db, monkeypatch):
    monkeypatch.setattr(knocks, "MOST", 2)
    at = now()
    for number in range(5):
        knocks.note(Knock.Kind.ACCOUNT, f"key {number}", "host", at)
    knocks.note(Knock.Kind.ACCOUNT, "key 0", "host", at)
    with isolation.only(knocks.NOBODY):
        assert [knock.count for knock in Knock.objects.order_by("pk")] == [2, 1]


# -- rule 3: shapes -----------------------------------------------------------


@pytest.mark.parametrize("encoded", [True, False])
def test_measurements_and_specs_may_be_strings_or_not(acme, ingest_key, encoded):
    given = recorded(SYSTEM)["json"]
    if not encoded:
        given["measurements"] = json.loads(given["measurements"])
        given["specs"] = json.loads(given["specs"])
    assert push("/metrics", given, ingest_key).status_code == 202
    sent = {
        one["name"]: one["value"] for one in json.loads(recorded(SYSTEM)["json"]["measurements"])
    }
    assert value(acme, "cpu", "percent") == sent["cpu.percent"]
    assert value(acme, "memory", "available") == sent["memory.available"]
    assert value(acme, "load", "load15") == sent["loadavg.15"]
    assert value(acme, "swap", "percent") == sent["swap.percent"]
    assert value(acme, "disk", "percent", device="/dev/vda") == sent["partition_usage.percent"]


def test_the_facts_of_a_host_are_its_specs(acme, ingest_key):
    example = recorded(SYSTEM)
    replay(example, ingest_key)
    facts = example["json"]["stats"]["platform"]
    server = Server.objects.get()
    assert server.host == example["json"]["server_name"]
    assert server.agent_id is None
    assert server.agent_version == "1.1"
    assert server.specs["os"] == {"name": "debian", "version": facts["dist"].split()[1]}
    assert server.specs["kernel"] == facts["kernel"]
    assert server.specs["processor"]["threads"] == facts["processor"]["qty"]
    assert server.specs["memory"]["total"] == facts["memory"]["total"]
    assert value(acme, "memory", "total") == facts["memory"]["total"]


def test_specs_count_only_where_stats_have_no_platform(acme, ingest_key):
    given = recorded(SYSTEM)["json"]
    specs = json.loads(given["specs"])
    specs["platform"]["kernel"] = "from specs"
    given["specs"] = json.dumps(specs)
    push("/metrics", given, ingest_key)
    assert Server.objects.get().specs["kernel"] == given["stats"]["platform"]["kernel"]
    del given["stats"]["platform"]
    push("/metrics", given, ingest_key)
    assert Server.objects.get().specs["kernel"] == "from specs"


def test_specs_may_be_absent_and_unknown_fields_are_ignored(acme, ingest_key):
    given = recorded(SYSTEM)["json"]
    del given["specs"]
    given["surprise"] = [1, {"a": None}]
    assert push("/metrics", given, ingest_key).status_code == 202


def test_the_release_of_openstack_is_kept(acme, ingest_key):
    given = recorded("metrics-system-0.5-first.json")
    replay(given, ingest_key)
    expected = given["json"]["stats"]["openstack"].get("version", "")
    assert Server.objects.get().openstack_release == expected


# -- rule 4: one bad measurement ----------------------------------------------

BAD = [
    {"name": "memory.percent", "value": "high"},
    {"name": "swap.percent", "value": None},
    {"name": "loadavg.1", "value": True},
    {"name": "loadavg.5", "value": float("nan")},
    {"name": "loadavg.15", "value": float("-inf")},
    {"name": "memory.used", "value": 10**400},
    {"name": 5, "value": 5},
    {"name": "", "value": 5},
    {"value": 5},
    "text",
    None,
]


@pytest.mark.parametrize("as_string", [True, False])
def test_a_bad_measurement_loses_only_itself(acme, ingest_key, as_string):
    good = {"name": "cpu.percent", "value": 3.5}
    measurements: Any = [*BAD, good]
    if as_string:
        measurements = json.dumps(measurements)
    given = {"server_name": "c1", "measurements": measurements, "stats": {}}
    assert push("/metrics", given, ingest_key).status_code == 202
    assert set(newest(acme)) == {("cpu", ())}
    assert value(acme, "cpu", "percent") == 3.5


def test_unknown_names_and_negative_deltas_are_stored_as_they_are(acme, ingest_key):
    measurements = [
        {"name": "net_io.bytes_sent", "value": -512, "tags": {"interface": "eth0"}},
        {"name": "something.new.here", "value": 7},
        {"name": "nodots", "value": 8},
    ]
    push("/metrics", {"server_name": "c1", "measurements": measurements}, ingest_key)
    assert value(acme, "net_io", "bytes_sent", interface="eth0") == -512
    assert value(acme, "something.new", "here") == 7
    assert value(acme, "nodots", "value") == 8


# -- rule 5: time -------------------------------------------------------------


def test_the_time_is_that_of_receipt(acme, ingest_key):
    before = now()
    replay(recorded(SYSTEM), ingest_key)
    at = newest(acme)["cpu", ()]["percent"].at
    assert before <= at <= timezone.now()
    assert queries.last_seen(acme.pk)[Server.objects.get().pk] >= before


def test_deltas_are_never_taken_for_counters(acme, ingest_key):
    replay(recorded("metrics-system-1.1-disk-io.json"), ingest_key)
    found = newest(acme)
    deltas = [place for place in found if place[0] in ("net_io", "disk_io_delta")]
    assert {measurement for measurement, _ in deltas} == {"net_io", "disk_io_delta"}
    for measurement, tags in deltas:
        for name in found[measurement, tags]:
            assert not queries.is_counter(measurement, name)
    assert not [place for place in found if place[0] == "disk_io"]


def test_a_host_is_silent_only_after_three_minutes(acme, ingest_key):
    replay(recorded(SYSTEM), ingest_key)
    assert Server.objects.get().silent_after > timedelta(minutes=3)


# -- rule 6: absence is not down ----------------------------------------------


def test_a_process_that_is_no_longer_named_keeps_its_state(acme, ingest_key):
    replay(recorded("metrics-system-0.5-first.json"), ingest_key)
    up = set(Service.objects.filter(state="up").values_list("name", flat=True))
    assert up == {"nova-api", "nova-compute", "neutron-server"}
    replay(recorded("metrics-system-0.5-later.json"), ingest_key)
    assert set(Service.objects.filter(state="up").values_list("name", flat=True)) == up


def test_down_is_no_alert_before_it_was_up(acme, ingest_key):
    replay(recorded(SYSTEM), ingest_key)
    down = Service.objects.filter(state="down")
    assert down.exists()
    assert not any(service.is_down for service in down)
    given = {"server_name": Server.objects.get().host}
    name = down[0].name
    for up in (1, 0):
        status = "running" if up else "down"
        one = {"name": f"openstack.processes.{name}.up", "value": up, "tags": {"status": status}}
        push("/metrics", {**given, "measurements": [one]}, ingest_key)
    assert Service.objects.get(name=name).is_down


def test_logs_alone_show_that_a_host_is_alive(acme, ingest_key):
    before = now()
    replay(recorded("logs-1.1.json")[0], ingest_key)
    server = Server.objects.get()
    assert queries.last_seen(acme.pk)[server.pk] >= before


# -- rule 7: keys of series ---------------------------------------------------


def test_the_state_of_a_process_is_one_series_whatever_its_status(acme, ingest_key):
    for status, up in (("sleeping", 1), ("running", 1), ("zombie", 1), ("down", 0)):
        one = {"name": "openstack.processes.nova-api.up", "value": up, "tags": {"status": status}}
        push("/metrics", {"server_name": "c1", "measurements": [one]}, ingest_key)
    assert [place for place in newest(acme) if place[0] == "service"] == [
        ("service", (("service", "nova-api"),))
    ]


@pytest.mark.parametrize(
    ("given", "state", "is_up"),
    [
        ([(1, "sleeping")], "up", 1),
        ([(0, "down")], "down", 0),
        ([(1, "zombie")], "down", 0),
        ([(1, "dead")], "down", 0),
        ([(1, "sleeping"), (0, "down")], "up", 1),
        ([(0, "down"), (1, "running")], "up", 1),
        ([(0, "down"), (0, "down")], "down", 0),
    ],
)
def test_of_several_states_the_one_that_is_up_counts_and_a_zombie_is_not_up(
    acme, ingest_key, given, state, is_up
):
    measurements = [
        {"name": "openstack.processes.nova-api.up", "value": up, "tags": {"status": status}}
        for up, status in given
    ]
    push("/metrics", {"server_name": "c1", "measurements": measurements}, ingest_key)
    assert Service.objects.get().state == state
    assert value(acme, "service", "up", service="nova-api") == is_up


def test_a_process_name_may_hold_dots(acme, ingest_key):
    one = {"name": "openstack.processes.my.api.v2.num_threads", "value": 5}
    push("/metrics", {"server_name": "c1", "measurements": [one]}, ingest_key)
    assert value(acme, "service", "threads", service="my.api.v2") == 5


def test_a_nova_service_that_is_up_and_down_is_kept_as_down(acme, ingest_key):
    replay(recorded("metrics-system-0.5-first.json"), ingest_key)
    assert value(acme, "openstack.nova-api.services", "status", binary="nova-compute") == 0
    assert value(acme, "openstack.nova-api.services", "status", binary="nova-scheduler") == 1


def test_an_instance_is_one_series_by_its_id(acme, ingest_key):
    for name, status, code in (("web", "ACTIVE", 1), ("renamed", "SHUTOFF", 2)):
        one = {
            "name": "openstack.nova-api.servers",
            "value": code,
            "tags": {"id": "i-1", "name": name, "status": status, "tenant_id": "t"},
        }
        push("/metrics", {"server_name": "c1", "measurements": [one]}, ingest_key)
    assert list(newest(acme)) == [("openstack.nova-api.servers", (("id", "i-1"),))]
    assert value(acme, "openstack.nova-api.servers", "status", id="i-1") == 2


def test_the_wrong_numbers_of_hypervisors_are_left_out(acme, ingest_key):
    replay(recorded("metrics-system-0.5-first.json"), ingest_key)
    measurements = {measurement for measurement, _ in newest(acme)}
    assert not [name for name in measurements if "hypervisors." in name]
    assert value(acme, "openstack.nova-api.hypervisor_total", "count") == 2


# -- rule 8: plugins ----------------------------------------------------------


@pytest.mark.parametrize(
    "example", ["metrics-plugin-template-1.1.json", "metrics-plugin-docker-1.1.json"]
)
def test_a_plugin_push_is_answered_and_listed_as_an_unknown_key(acme, ingest_key, example):
    given = recorded(example)
    assert replay(given, ingest_key).status_code == 202
    assert replay(given, ingest_key).status_code == 202
    [knock] = knocks.of_tenant(acme.pk)
    [key] = given["json"]["plugins"]
    assert (knock.kind, knock.hint, knock.count) == ("plugin", key, 2)
    assert knock.host == given["json"]["server_name"]
    assert knock.sample
    server = Server.objects.get()
    assert queries.latest(acme.pk, [server.pk]) == {}
    assert queries.last_seen(acme.pk).keys() == {server.pk}


def test_a_plugin_push_does_not_overwrite_the_facts_of_its_host(acme, ingest_key):
    replay(recorded(SYSTEM), ingest_key)
    before = Server.objects.get().specs
    given = recorded("metrics-plugin-docker-1.1.json")["json"]
    push("/metrics", {**given, "server_name": Server.objects.get().host}, ingest_key)
    assert Server.objects.get().specs == before


@pytest.mark.parametrize("plugins", [{}, {"k": {}}, {"k": {"m": {"value": 1}}}, {"k": 5}, [], "x"])
def test_plugin_pushes_of_any_shape_are_answered(acme, ingest_key, plugins):
    given = {"server_name": "c1", "plugins": plugins, "stats": {"agent_version": "1.1"}}
    assert push("/metrics", given, ingest_key).status_code == 202


def test_a_push_may_bring_plugins_and_measurements(acme, ingest_key):
    given = {
        "server_name": "c1",
        "plugins": {"k": {}},
        "measurements": [{"name": "cpu.percent", "value": 5}],
    }
    assert push("/metrics", given, ingest_key).status_code == 202
    assert value(acme, "cpu", "percent") == 5
    assert [knock.hint for knock in knocks.of_tenant(acme.pk)] == ["k"]


def test_what_knocks_at_acme_is_not_shown_to_globex(acme, globex, ingest_key):
    replay(recorded("metrics-plugin-docker-1.1.json"), ingest_key)
    assert knocks.of_tenant(globex.pk) == []


# -- rule 9: logs -------------------------------------------------------------


def test_the_recorded_log_lines_are_stored_and_searchable(acme, ingest_key):
    examples = recorded("logs-1.1.json")
    for example in examples:
        assert replay(example, ingest_key).status_code == 202
    found = events.search(acme.pk, Matcher()).events
    assert {event.level for event in found} == {"critical", "error", "warning"}
    by_message = {event.message: event for event in found}
    quota = next(event for event in found if "Quota exceeded" in event.message)
    assert not quota.message.endswith("\n")
    assert (quota.service, quota.component, quota.pid) == ("nova-api", "nova.quota", 28851)
    assert quota.request_id == "req-f9b0382f-e55e-4ec2-9b5e-5c2c2f2b7ed4"
    assert quota.written == "2026-11-22 10:34:00.666"
    loop = next(event for event in found if "task run outlasted" in event.message)
    assert loop.pid is None
    assert len(by_message) == len(found)


def line(key: str, description: str, **more: Any) -> Any:
    given = {
        "server_name": "c1",
        "service_name": "nova-api",
        "timex": "2026-11-22 10:34:00.675",
        "log_id": "991",
        "level": "ERROR",
        "component": "nova.api",
        "description": description,
        **more,
    }
    return push("/logs", given, key)


def test_the_lines_of_a_traceback_are_one_event(acme, ingest_key):
    lines = ["Unexpected\n", "Traceback (most recent call last):\n", '  File "x", line 1\n', "\n"]
    for text in [*lines, "ValueError\n"]:
        assert line(ingest_key, text).status_code == 202
    [found] = events.search(acme.pk, Matcher()).events
    assert found.message == "\n".join([text.rstrip() for text in lines] + ["ValueError"])


@pytest.mark.parametrize(
    "other",
    [
        {"timex": "2026-11-22 10:34:00.676"},
        {"log_id": "992"},
        {"component": "nova.db"},
        {"level": "WARNING"},
        {"server_name": "c2"},
        {"service_name": "nova-compute"},
    ],
)
def test_lines_of_another_time_process_or_place_are_other_events(acme, ingest_key, other):
    line(ingest_key, "one")
    line(ingest_key, "two", **other)
    assert len(events.search(acme.pk, Matcher()).events) == 2


def test_a_traceback_without_end_keeps_its_first_64_kilobytes(acme, ingest_key):
    for _ in range(3):
        line(ingest_key, "x" * 40_000)
    [found] = events.search(acme.pk, Matcher()).events
    assert len(found.message) == 65_536


def test_the_fingerprint_ignores_the_request_context(acme, ingest_key):
    context = "[req-{} admin demo - - -] [instance: {}] "
    line(ingest_key, context.format("aaaa-1", "x-1") + "Instance 7 failed")
    line(ingest_key, context.format("bbbb-2", "y-2") + "Instance 8 failed", timex="later")
    line(ingest_key, "[-] Something else", timex="even later")
    first, second, third = events.search(acme.pk, Matcher()).events
    assert second.fingerprint == third.fingerprint != first.fingerprint


@pytest.mark.parametrize("missing", ["component", "level", "timex", "log_id", "description"])
def test_log_fields_may_be_missing(acme, ingest_key, missing):
    given = {k: v for k, v in recorded("logs-1.1.json")[0]["json"].items() if k != missing}
    assert push("/logs", given, ingest_key).status_code == 202
    assert len(events.search(acme.pk, Matcher()).events) == 1


# -- rules 10, 11, 12 ---------------------------------------------------------


def test_one_log_line_needs_few_queries(acme, ingest_key, django_assert_max_num_queries):
    line(ingest_key, "one")
    with django_assert_max_num_queries(20) as captured:
        line(ingest_key, "two", timex="later")
    assert not [query for query in captured if "clouds_" in query["sql"]]


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "x" * 5000, "a\0b", "\ud800", "😀"])
def test_names_are_hostile_text(acme, ingest_key, name):
    given = {
        "server_name": name,
        "measurements": [{"name": name, "value": 1, "tags": {name: name}}],
        "plugins": {name: {name: {"row_name": name, "value": name}}},
        "stats": {"platform": {"dist": name, "kernel": name}, "agent_version": name},
    }
    assert push("/metrics", given, ingest_key).status_code == 202
    assert line(ingest_key, name, service_name=name, component=name).status_code == 202


@pytest.mark.parametrize("given", [{}, {"server_name": ""}, {"server_name": 5.5e300}, []])
def test_without_a_server_name_nothing_can_be_placed(acme, ingest_key, given):
    content = json.dumps({**given, "account_key": ingest_key} if given != [] else given).encode()
    for path in ("/metrics", "/logs"):
        answer = post(path, content)
        assert answer.status_code in (202, 400)
        if answer.status_code == 400:
            assert answer["Content-Type"] == "application/problem+json"


def test_an_account_key_writes_as_any_server_but_never_as_a_new_agents(acme, ingest_key):
    Server.objects.create(agent_id=AGENT, host="c1")
    line(ingest_key, "one")
    assert sorted(server.agent_id is None for server in Server.objects.filter(host="c1")) == [
        False,
        True,
    ]


def test_two_accounts_with_one_host_name_are_two_servers(acme, globex, ingest_key, globex_key):
    line(ingest_key, "of acme")
    line(globex_key, "of globex")
    assert [e.message for e in events.search(acme.pk, Matcher()).events] == ["of acme"]
    assert [e.message for e in events.search(globex.pk, Matcher()).events] == ["of globex"]


def test_a_revoked_account_key_is_refused_from_then_on(acme):
    key, text = keys.issue(acme, Key.Scope.INGEST)
    assert line(text, "one").status_code == 202
    keys.revoke(key, timezone.now())
    keys.forget_cached()
    assert line(text, "two").status_code == 401


# -- whatever is sent ---------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
NAMES = st.sampled_from(
    [
        "cpu.percent",
        "openstack.processes.a.up",
        "openstack.processes..up",
        "openstack.nova-api.services..status",
        "openstack.nova-api.servers",
        ".",
        "a..b",
    ]
)
MEASUREMENT = st.fixed_dictionaries(
    {},
    optional={
        "name": NAMES | JSON,
        "value": st.floats() | st.integers() | JSON,
        "tags": st.dictionaries(st.text(), st.text() | JSON, max_size=3) | JSON,
    },
)
PUSH = st.fixed_dictionaries(
    {"server_name": st.just("c1") | JSON},
    optional={
        "measurements": st.lists(MEASUREMENT | JSON, max_size=5)
        | st.lists(MEASUREMENT | JSON, max_size=3).map(json.dumps)
        | JSON,
        "stats": st.fixed_dictionaries({}, optional={"platform": JSON, "openstack": JSON}) | JSON,
        "specs": JSON | JSON.map(json.dumps),
        "plugins": st.dictionaries(st.text(), JSON, max_size=3) | JSON,
        "timex": JSON,
        "log_id": st.text("0123456789") | JSON,
        "level": st.sampled_from(["ERROR", "warn", ""]) | JSON,
        "component": JSON,
        "service_name": JSON,
        "description": JSON,
    },
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(given_push=PUSH, path=st.sampled_from(["/metrics", "/logs"]))
def test_no_push_ever_fails_the_server(acme, ingest_key, given_push, path):
    assert push(path, given_push, ingest_key).status_code in (202, 400)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_push_or_refused_with_a_problem(content):
    try:
        found = legacy.parse(content)
    except (NotJSON, TooDeep, legacy.NotAPush) as refused:
        code = refused.status
    else:
        code = 400 if found.body else 0
    assert code in (0, 400)


def test_times_of_receipt_keep_points_apart(acme, ingest_key):
    at = now()
    for number in range(3):
        parsed = legacy.parse(
            json.dumps(
                {"server_name": "c1", "measurements": [{"name": "cpu.percent", "value": number}]}
            ).encode()
        )
        batch, _ = legacy.metrics(parsed, at - (3 - number) * MINUTE)
        ingest.accept(acme, batch)
    server = Server.objects.get()
    chart = queries.series(
        acme.pk,
        server.pk,
        "cpu",
        "percent",
        start=at - 5 * MINUTE,
        end=at + SECOND,
        points=2000,
    )
    assert [value for line in chart.series for value in line.values] == [0, 1, 2]
