"""Credentials of programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import call_command

from accounts import keys
from accounts.models import Key

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _empty_cache():
    keys.forget_cached()
    yield
    keys.forget_cached()


def test_a_key_is_found_by_its_text_and_stored_without_it(acme):
    key, text = keys.issue(acme, Key.Scope.READ, name="grafana")
    assert keys.find(text, "read").tenant_id == acme.pk
    stored = json.dumps(Key.objects.filter(pk=key.pk).values("name", "prefix").first())
    assert text.split("_")[2] not in stored
    assert bytes(Key.objects.get(pk=key.pk).digest) != text.encode()


@pytest.mark.parametrize(
    "text", ["", "snt_", "snt_000000000000_" + "a" * 40, "Bearer x", "snt_é_ü", "x" * 10_000]
)
def test_what_is_no_key_is_unknown(acme, text):
    with pytest.raises(keys.UnknownKey):
        keys.find(text)


def test_the_right_prefix_with_a_wrong_secret_is_unknown(acme):
    _, text = keys.issue(acme, Key.Scope.READ)
    with pytest.raises(keys.UnknownKey):
        keys.find(text[:-1] + ("a" if text[-1] != "a" else "b"))


def test_a_revoked_key_is_unknown_at_once_in_this_process(acme, django_capture_on_commit_callbacks):
    key, text = keys.issue(acme, Key.Scope.READ)
    keys.find(text)
    with django_capture_on_commit_callbacks(execute=True):
        keys.revoke(key, NOON)
    with pytest.raises(keys.UnknownKey):
        keys.find(text)


def test_another_process_forgets_a_revoked_key_within_its_cache_time(acme, monkeypatch):
    key, text = keys.issue(acme, Key.Scope.READ)
    now = [1000.0]
    monkeypatch.setattr(keys.time, "monotonic", lambda: now[0])
    keys.find(text)
    Key.objects.filter(pk=key.pk).update(revoked_at=NOON)
    assert keys.find(text)
    now[0] += keys.CACHE_SECONDS + 1
    with pytest.raises(keys.UnknownKey):
        keys.find(text)
    assert keys.CACHE_SECONDS <= 60


def test_whoever_holds_a_whole_key_learns_what_became_of_it(acme):
    key, text = keys.issue(acme, Key.Scope.INGEST)
    Key.objects.filter(pk=key.pk).update(revoked_at=NOON)
    with pytest.raises(keys.RevokedKey, match="revoked"):
        keys.find(text)
    guessed = text[:-1] + ("a" if text[-1] != "a" else "b")
    with pytest.raises(keys.UnknownKey) as unknown:
        keys.find(guessed)
    assert unknown.value.code == "unknown-key", "the prefix alone tells nothing"


def test_an_expired_key_is_unknown(acme):
    _, text = keys.issue(acme, Key.Scope.READ, expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(keys.UnknownKey):
        keys.find(text)


def test_an_enrol_token_turns_into_one_servers_key_once(acme):
    token, text = keys.issue_enrol_token(acme, None, NOON)
    agent = uuid4()
    key, secret = keys.enrol(text, agent, "nova-1", NOON + timedelta(minutes=59))
    assert keys.find(secret, "ingest").agent_id == agent
    assert key.name == "nova-1"
    token.refresh_from_db()
    assert token.agent_id == agent
    with pytest.raises(keys.UnknownKey, match="spent"):
        keys.enrol(text, uuid4(), "nova-2", NOON + timedelta(minutes=59))


def test_an_enrol_token_ends_after_an_hour(acme):
    _, text = keys.issue_enrol_token(acme, None, NOON)
    with pytest.raises(keys.UnknownKey, match="expired"):
        keys.enrol(text, uuid4(), "nova-1", NOON + timedelta(hours=1))


def test_an_enrol_token_is_no_key(acme):
    _, text = keys.issue_enrol_token(acme, None, datetime.now(UTC))
    with pytest.raises(keys.UnknownKey):
        keys.find(text)


def test_bootstrap_prints_the_same_keys_again_and_new_ones_after_a_revocation(db):
    def bootstrap():
        out = StringIO()
        call_command(
            "bootstrap", slug="initech", name="Initech", email="bill@initech.example", stdout=out
        )
        return json.loads(out.getvalue())

    first, second = bootstrap(), bootstrap()
    assert first["password"]
    assert "password" not in second
    assert {**second, "password": first["password"]} == first
    assert first["organization"] == "initech"
    assert first["url"].endswith("/o/initech/")
    assert keys.find(first["keys"]["admin"], "admin")
    keys.revoke(Key.objects.get(prefix=first["keys"]["admin"].split("_")[1]), NOON)
    third = bootstrap()
    assert third["keys"]["admin"] != first["keys"]["admin"]
    assert third["keys"]["ingest"] == first["keys"]["ingest"]


def test_keys_over_the_api_show_their_secret_once(acme, client):
    _, admin = keys.issue(acme, Key.Scope.ADMIN)
    header = {"Authorization": f"Bearer {admin}"}
    made = client.post(
        "/o/acme/api/v1/keys/",
        {"scope": "ingest", "name": "telegraf"},
        content_type="application/json",
        headers=header,
    )
    assert made.status_code == 201, made.content
    text = made.json()["key"]
    assert keys.find(text, "ingest")
    listed = client.get("/o/acme/api/v1/keys/", headers=header)
    assert text not in listed.content.decode()
    gone = client.delete(f"/o/acme/api/v1/keys/{made.json()['id']}/", headers=header)
    assert gone.status_code == 204


def test_members_see_keys_and_only_admins_issue_them(acme, client, bob, alice):
    client.force_login(bob)
    assert client.get("/o/acme/settings/keys/").status_code == 200
    refused = client.post("/o/acme/settings/keys/issue/", {"name": "x", "scope": "read"})
    assert refused.status_code == 403
    client.force_login(alice)
    page = client.post("/o/acme/settings/keys/issue/", {"name": "x", "scope": "read"})
    assert b"snt_" in page.content
    assert "no-store" in page["Cache-Control"]
