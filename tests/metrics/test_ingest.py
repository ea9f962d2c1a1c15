"""One way in: what is accepted is stored once, and what is not is named."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from clouds.models import Server, Service
from metrics import events, ingest, queries
from metrics.doors import native
from metrics.events import Matcher
from metrics.signals import stored
from sentinel_site.kit.tenancy import in_schema
from tests.metrics.builders import (
    AGENT,
    HOUR,
    MINUTE,
    OTHER_AGENT,
    SECOND,
    body,
    event,
    now,
    point,
    report,
)


def send(tenant: Any, *reports: dict[str, Any], at: Any = None) -> Any:
    return ingest.accept(tenant, native.parse(body(*reports), at or now()))


def cpu(tenant: Any, server: Server, around: Any) -> list[tuple[float, float]]:
    chart = queries.series(
        tenant.pk,
        server.pk,
        "cpu",
        "percent",
        start=around - HOUR,
        end=around + HOUR,
        points=2000,
        agg="last",
    )
    return [pair for line in chart.series for pair in zip(line.times, line.values, strict=True)]


def test_a_first_report_registers_its_server_with_all_it_says(acme):
    at = now()
    answer = send(
        acme,
        report(
            at,
            points=[point(percent=12.5), point("disk", {"device": "sda1"}, used=7)],
            events=[event(at)],
            services=[{"name": "nova-api", "project": "nova", "state": "up", "workers": 4}],
            specs={"kernel": "6.1", "memory": {"total": 8}},
        ),
    )
    assert (answer.accepted, answer.duplicates, answer.rejected) == (1, 0, [])
    server = Server.objects.get()
    assert (server.host, server.agent_id, server.interval) == ("nova-1", AGENT, 10 * SECOND)
    assert server.specs == {"kernel": "6.1", "memory": {"total": 8}}
    service = Service.objects.get()
    assert (service.name, service.state, service.workers) == ("nova-api", "up", 4)
    newest = queries.latest(acme.pk, [server.pk])[server.pk]
    assert newest["cpu", ()]["percent"].value == 12.5
    assert newest["disk", (("device", "sda1"),)]["used"].value == 7
    assert newest["cpu", ()]["percent"].at == at
    [found] = events.search(acme.pk, Matcher()).events
    assert (found.message, found.level, found.at) == ("It broke", "error", at)


def test_the_same_report_twice_has_one_effect(acme):
    at = now()
    given = report(at, points=[point(percent=1)], events=[event(at)])
    assert send(acme, given).accepted == 1
    again = send(acme, given)
    assert (again.accepted, again.duplicates) == (0, 1)
    assert Server.objects.count() == 1
    assert len(events.search(acme.pk, Matcher()).events) == 1


def test_a_report_is_known_by_its_sequence_even_if_its_content_differs(acme):
    at = now()
    send(acme, report(at, points=[point(percent=1)]))
    again = send(acme, report(at + SECOND, points=[point(percent=2)]))
    assert again.duplicates == 1
    assert [value for _, value in cpu(acme, Server.objects.get(), at)] == [1]


def test_a_report_twice_in_one_request_counts_once(acme):
    given = report(points=[point(percent=1)])
    answer = send(acme, given, given)
    assert (answer.accepted, answer.duplicates) == (1, 1)


def test_a_new_epoch_begins_anew(acme):
    at = now()
    send(acme, report(at, points=[point(percent=1)]))
    answer = send(acme, report(at + 10 * SECOND, epoch="e2", points=[point(percent=2)]))
    assert answer.accepted == 1
    assert Server.objects.count() == 1


def test_a_backlog_fills_the_gap_behind_the_newest_report(acme):
    at = now()
    send(acme, report(at - 30 * SECOND, sequence=1, points=[point(percent=1)]))
    send(acme, report(at, sequence=4, points=[point(percent=4)]))
    backlog = [
        report(at - (4 - n) * 10 * SECOND, sequence=n, points=[point(percent=n)]) for n in (1, 2, 3)
    ]
    answer = send(acme, *backlog)
    assert (answer.accepted, answer.duplicates) == (2, 1)
    server = Server.objects.get()
    assert [value for _, value in cpu(acme, server, at)] == [1, 2, 3, 4]
    assert queries.latest(acme.pk, [server.pk])[server.pk]["cpu", ()]["percent"].value == 4


def test_an_agent_that_counts_wildly_is_told_so(acme):
    at = now()
    sparse = [report(at, sequence=2 * n, points=[point(percent=n)]) for n in range(500)]
    for start in range(3):
        for n, one in enumerate(sparse):
            one["sequence"] = 2 * (n + 500 * start)
        answer = send(acme, *sparse)
    assert {reject.code for reject in answer.rejected} == {"too-many-gaps"}
    assert answer.accepted + len(answer.rejected) == 500


def test_states_of_older_reports_never_overwrite_newer_ones(acme):
    at = now()

    def state(word: str) -> list[dict[str, Any]]:
        return [{"name": "nova-api", "project": "nova", "state": word}]

    send(acme, report(at - MINUTE, sequence=1, services=state("up")))
    send(acme, report(at, sequence=3, services=state("down")))
    send(acme, report(at - 30 * SECOND, sequence=2, services=state("up")))
    service = Service.objects.get()
    assert (service.state, service.since, service.is_down) == ("down", at, True)


def test_a_service_that_never_ran_is_not_down(acme):
    send(acme, report(services=[{"name": "nova-api", "project": "nova", "state": "down"}]))
    assert not Service.objects.get().is_down


def test_a_service_that_is_no_longer_reported_becomes_unknown_and_is_forgotten_a_day_later(acme):
    at = now() - timedelta(days=3)
    api = {"name": "nova-api", "project": "nova", "state": "up"}
    other = {"name": "glance-api", "project": "glance", "state": "up"}
    send(acme, report(at, sequence=1, points=[point(percent=1)], services=[api, other]))
    send(acme, report(at + MINUTE, sequence=2, points=[point(percent=1)], services=[api]))
    assert Service.objects.get(name="glance-api").state == "unknown"
    later = at + timedelta(days=2)
    send(
        acme,
        report(later, sequence=3, points=[point(percent=1)], services=[{**api, "state": "down"}]),
    )
    assert list(Service.objects.values_list("name", flat=True)) == ["nova-api"]


def test_what_a_script_sends_says_nothing_of_services(acme):
    at = now() - HOUR
    own = point("agent", cpu_percent=1)
    send(acme, report(at, points=[own], services=[SERVICE]))
    send(acme, report(at + SECOND, sequence=2, points=[point("backup", seconds=41)]))
    assert Service.objects.get().state == "up"
    send(acme, report(at + MINUTE, sequence=3, points=[own]))
    assert Service.objects.get().state == "unknown", "its agent watches none any more"


def test_the_tenants_schema_is_touched_only_by_news(acme, django_assert_max_num_queries):
    at = now()
    api = [{"name": "nova-api", "project": "nova", "state": "up"}]
    send(acme, report(at, sequence=1, points=[point(percent=1)], services=api))
    with django_assert_max_num_queries(18) as captured:
        send(
            acme,
            report(at + 10 * SECOND, sequence=2, points=[point(percent=2)], services=api),
        )
    assert not [query for query in captured if "clouds_" in query["sql"]]


def test_specs_that_arrive_late_are_kept_and_older_ones_are_not(acme):
    at = now()
    send(acme, report(at, sequence=3, points=[point(percent=1)]))
    send(acme, report(at - MINUTE, sequence=2, specs={"kernel": "6.1"}))
    assert Server.objects.get().specs == {"kernel": "6.1"}
    send(acme, report(at - 2 * MINUTE, sequence=1, specs={"kernel": "5.10"}))
    assert Server.objects.get().specs == {"kernel": "6.1"}


def test_a_host_name_of_two_agents_is_two_servers(acme):
    send(acme, report(points=[point(percent=1)]), report(agent=str(OTHER_AGENT)))
    assert Server.objects.count() == 2


def test_a_clock_a_year_ahead_rejects_the_points_but_the_server_is_heard(acme):
    at = now()
    ahead = at + timedelta(days=365)
    answer = send(acme, report(ahead, points=[point(percent=1)], events=[event(ahead)]), at=at)
    assert [(r.item, r.code) for r in answer.rejected] == [("events[0]", "clock"), ("at", "clock")]
    assert "1 day" in answer.rejected[0].detail
    assert "NTP" in answer.rejected[0].detail
    server = Server.objects.get()
    assert queries.last_seen(acme.pk) == {server.pk: at}
    assert queries.latest(acme.pk, [server.pk]) == {}


def test_a_clock_a_year_behind_is_too_old(acme):
    at = now()
    answer = send(acme, report(at - timedelta(days=365), points=[point(percent=1)]), at=at)
    assert [(r.item, r.code) for r in answer.rejected] == [("at", "too-old")]


def test_a_clock_that_was_ahead_for_a_while_hides_nothing_that_comes_later(acme):
    """Some hours are taken as they are; once the clock is right again, the newest word counts."""
    at = now()
    api = {"name": "nova-api", "project": "nova"}
    ahead = [{**api, "state": "up"}]
    send(acme, report(at + 10 * HOUR, points=[point(percent=90)], services=ahead), at=at)
    later = at + MINUTE
    right = [{**api, "state": "down"}]
    answer = send(
        acme, report(later, sequence=2, points=[point(percent=5)], services=right), at=later
    )
    assert answer.rejected == []
    server = Server.objects.get()
    assert queries.latest(acme.pk, [server.pk])[server.pk]["cpu", ()]["percent"].value == 5
    assert Service.objects.get().is_down


def test_one_bad_event_time_spoils_only_that_event(acme):
    at = now()
    good, bad = event(at, "1"), event(at + timedelta(days=400), "2")
    answer = send(acme, report(at, events=[bad, good]))
    assert [(r.item, r.code) for r in answer.rejected] == [("events[0]", "clock")]
    assert len(events.search(acme.pk, Matcher()).events) == 1


def test_an_event_of_two_reports_is_stored_once(acme):
    at = now()
    send(acme, report(at, sequence=1, events=[event(at, "7")]))
    send(acme, report(at + SECOND, sequence=2, events=[event(at, "7"), event(at, "8")]))
    assert len(events.search(acme.pk, Matcher()).events) == 2


def test_those_above_are_told_what_came_after_it_is_stored(acme):
    told = []

    def listen(**news: Any) -> None:
        found = queries.latest(news["tenant_id"], news["server_ids"])
        told.append((news["kinds"], bool(found), news["schema"]))

    stored.connect(listen)
    try:
        send(acme, report(points=[point(percent=1)]))
        send(acme, report(points=[point(percent=1)]))  # a duplicate is no news
    finally:
        stored.disconnect(listen)
    assert told == [(frozenset({"points", "server"}), True, acme.schema_name)]


def test_two_tenants_with_the_same_agent_id_have_a_server_each(acme, globex):
    at = now()
    send(acme, report(at, points=[point(percent=1)]))
    answer = send(globex, report(at, points=[point(percent=2)]))
    assert answer.accepted == 1
    mine = Server.objects.get()
    with in_schema(globex.schema_name):
        theirs = Server.objects.get()
    assert queries.latest(acme.pk, [mine.pk])[mine.pk]["cpu", ()]["percent"].value == 1
    assert queries.latest(globex.pk, [theirs.pk])[theirs.pk]["cpu", ()]["percent"].value == 2


def test_a_forgotten_server_leaves_nothing_and_may_come_again(acme):
    at = now()
    given = report(at, points=[point(percent=1)], events=[event(at)])
    send(acme, given)
    server = Server.objects.get()
    ingest.forget(acme.pk, server.pk)
    assert queries.latest(acme.pk, [server.pk]) == {}
    assert events.search(acme.pk, Matcher()).events == []
    assert queries.last_seen(acme.pk) == {}
    assert send(acme, given).accepted == 1


@pytest.mark.parametrize("count", [3])
def test_active_tenants_are_those_that_sent_something_lately(acme, globex, count):
    at = now()
    for n in range(count):
        send(acme, report(at, sequence=n, points=[point(percent=n)]), at=at)
    assert queries.active_tenants(at) == [acme.schema_name]
    assert queries.active_tenants(at + HOUR) == []


def test_an_agents_goodbye_is_kept_until_it_speaks_again(acme):
    at = now() - HOUR
    send(acme, report(at, points=[point(percent=1)], services=[SERVICE]))
    send(acme, report(at + SECOND, sequence=2, goodbye="the host shuts down"))
    server = Server.objects.get()
    assert (server.goodbye, server.goodbye_at) == ("the host shuts down", at + SECOND)
    assert Service.objects.get().state == "up", "what it watched is not down for that"
    send(acme, report(at + MINUTE, sequence=3, points=[point(percent=1)], services=[SERVICE]))
    server.refresh_from_db()
    assert (server.goodbye, server.goodbye_at) == ("", None)


def test_a_goodbye_that_comes_late_is_none(acme):
    at = now() - HOUR
    send(acme, report(at, points=[point(percent=1)]))
    send(acme, report(at + MINUTE, sequence=3, points=[point(percent=1)]))
    send(acme, report(at + SECOND, sequence=2, goodbye="SIGTERM"))
    assert Server.objects.get().goodbye == ""
    late = report(at + MINUTE + SECOND, sequence=4, goodbye="SIGTERM")
    send(acme, late, report(at + 2 * MINUTE, sequence=5, points=[point(percent=1)]))
    assert Server.objects.get().goodbye == ""


SERVICE = {"name": "nova-api", "project": "nova", "state": "up"}
