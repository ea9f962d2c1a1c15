"""The bell: notices of all cloud groups, what of them is unread, and who says so."""

from __future__ import annotations

import json

import pytest

from accounts import keys
from accounts.access import Access
from accounts.models import Key, Role
from alerts.lifecycle import care, muting, notices
from alerts.models import Event, Incident, NotificationChannel, Reader
from clouds import suppression
from clouds.suppression import Why
from sentinel_site.kit.tenancy import in_schema
from tests.alerts.builders import MINUTE, NOON, make_rule, make_server
from tests.alerts.test_breaches import read
from tests.alerts.test_delivery import open_incidents

PATH = "/o/acme/api/v1/notices/"


@pytest.fixture
def quiet(acme):
    """Nobody else is told: these tests are about the page alone."""
    NotificationChannel.objects.all().delete()
    return acme


def kinds(user=None):
    return [one.kind for one in notices.newest(user)]


def test_what_opens_and_ends_is_a_notice_the_newest_first(quiet, alice):
    rule, server = make_rule(), make_server()
    read(rule, server, 90, NOON)
    read(rule, server, 10, NOON + MINUTE)
    over, opened = notices.newest(alice.pk)
    assert (over.kind, opened.kind) == ("resolved", "opened")
    assert (opened.title, opened.severity, opened.text) == (
        "Busy",
        "warning",
        "It is <90> (limit 60.0 %)",
    )
    assert over.is_unread
    assert notices.unread(alice.pk) == 2


def test_each_has_read_what_they_saw_and_nothing_is_unread_again(quiet, alice, bob):
    open_incidents(3, NOON)
    first, *_, last = sorted(Event.objects.values_list("pk", flat=True))
    notices.read(alice.pk, last)
    notices.read(alice.pk, first)
    assert (notices.unread(alice.pk), notices.unread(bob.pk)) == (0, 3)
    open_incidents(1, NOON + MINUTE, first=3)
    assert notices.unread(alice.pk) == 1
    assert [one.is_unread for one in notices.newest(alice.pk)] == [True, False, False, False]


def test_what_will_be_cannot_be_read_ahead(quiet, alice):
    open_incidents(1, NOON)
    notices.read(alice.pk, 2**62)
    open_incidents(1, NOON + MINUTE, first=1)
    assert notices.unread(alice.pk) == 1


def test_what_one_does_oneself_is_no_news(quiet, alice, bob):
    open_incidents(1, NOON)
    care.acknowledge(Access(quiet, Role.MEMBER, bob), Incident.objects.get(), NOON + MINUTE)
    assert kinds(bob.pk) == ["opened"]
    assert kinds(alice.pk) == ["acknowledged", "opened"]
    assert notices.newest(alice.pk)[0].by == str(bob)


def test_what_is_muted_rings_no_bell_until_that_is_over(quiet, alice):
    server = make_server()
    suppression.black_out(server, Why("at it", by=1), NOON, NOON + 10 * MINUTE)
    read(make_rule(), server, 90, NOON + MINUTE)
    assert kinds(alice.pk) == []
    suppression.expire(NOON + 10 * MINUTE)
    muting.tell_what_was_muted(NOON + 10 * MINUTE)
    assert kinds(alice.pk) == ["opened"]


def test_in_a_storm_the_bell_counts_no_further_than_it_shows(quiet, alice):
    open_incidents(150, NOON)
    assert notices.unread(alice.pk) == notices.MOST + 1
    assert len(notices.newest(alice.pk)) == notices.SHOWN


def test_the_notices_take_as_many_statements_for_many_as_for_few(
    quiet, alice, django_assert_num_queries
):
    open_incidents(30, NOON)
    with django_assert_num_queries(2):
        notices.newest(alice.pk)
    with django_assert_num_queries(1):
        notices.unread(alice.pk)


def test_the_bell_of_every_page_counts_what_is_unread_and_is_read_by_the_page(quiet, client, alice):
    open_incidents(2, NOON)
    newest = Event.objects.latest("pk").pk
    client.force_login(alice)
    page = client.get("/o/acme/rules/").content.decode()
    assert '2<span class="sr"> unread</span>' in page
    menu = client.get("/o/acme/notices/").content.decode()
    assert menu.count("Unread:") == 2
    assert f'data-newest="{newest}"' in menu
    assert client.post("/o/acme/notices/read/", {"upto": newest}).status_code == 204
    menu = client.get("/o/acme/notices/").content.decode()
    assert "Unread:" not in menu
    assert "Thing 1 fails" in menu, "it stays to be looked up"


@pytest.mark.parametrize("upto", ["", "x", "-1", "9" * 30])
def test_a_page_that_says_nonsense_reads_nothing(quiet, client, alice, upto):
    open_incidents(1, NOON)
    client.force_login(alice)
    assert client.post("/o/acme/notices/read/", {"upto": upto}).status_code == 204
    with in_schema(quiet.schema_name):
        assert not Reader.objects.exists()


def test_programs_read_them_too(quiet, client, alice):
    open_incidents(3, NOON)
    client.force_login(alice)
    found = client.get(PATH).json()
    assert (found["unread"], len(found["results"])) == (3, 3)
    ids = [one["id"] for one in found["results"]]
    older = client.get(PATH, {"before": ids[0]}).json()["results"]
    assert [one["id"] for one in older] == ids[1:]
    said = json.dumps({"upto": ids[0]})
    assert client.post(PATH, said, content_type="application/json").status_code == 204
    assert client.get(PATH).json()["unread"] == 0
    assert client.get(PATH, {"before": "x"}).status_code == 422
    assert client.post(PATH, "{}", content_type="application/json").status_code == 422


def test_a_key_sees_notices_and_has_nothing_to_read(quiet, client):
    open_incidents(1, NOON)
    secret = keys.issue(quiet, Key.Scope.READ)[1]
    found = client.get(PATH, headers={"Authorization": f"Bearer {secret}"}).json()
    assert (found["unread"], len(found["results"])) == (0, 1)


def test_nobody_of_another_organization_hears_the_bell(quiet, client, mallory):
    open_incidents(1, NOON)
    client.force_login(mallory)
    assert client.get("/o/acme/notices/").status_code == 404
    assert client.get(PATH).status_code == 404
