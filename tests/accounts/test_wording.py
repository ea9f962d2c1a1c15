"""The audit log speaks in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings

from accounts import wording
from accounts.access import Access, audit
from accounts.models import Role

APPS = ("accounts", "alerts", "clouds", "metrics", "plugins_registry")
VERB = re.compile(
    r"\"((?:channel|checkin|group|key|member|notification|route|rule|server|suppression)"
    r"\.[a-z{][a-z_{}'\[\]-]*)\""
)


def written() -> set[str]:
    """Every verb that the code writes; those made of a kind stand for both kinds."""
    found = set()
    for app in APPS:
        for path in Path(settings.BASE_DIR, app).rglob("*.py"):
            text = path.read_text()
            if "audit" in text and path.name != "wording.py":
                for verb in VERB.findall(text):
                    kinds = ("maintenance", "blackout")
                    found |= {re.sub(r"{[^}]*}", kind, verb) for kind in kinds}
    return found


def test_every_verb_of_the_audit_log_has_words_and_no_other():
    assert written() == set(wording.VERBS)


@pytest.mark.parametrize(
    ("verb", "data", "said"),
    [
        ("key.issued", {"name": "ansible", "scope": "read"}, "“ansible”, to read"),
        ("key.issued", {"scope": "enrol"}, "a token that enrols one server"),
        ("member.role", {"role": "admin"}, "as admin"),
        (
            "server.maintenance",
            {"reason": "kernel", "until": "2026-03-01T14:03:09+00:00"},
            "“kernel”, until 2026-03-01 14:03 UTC",
        ),
        (
            "server.settings",
            {"interval": 30.0, "levels": {"nova": "info"}, "collectors": {"swap": False}},
            "reports every 30 s, nova from info on, swap off",
        ),
        ("server.settings", {"interval": None}, "as its own configuration says"),
        ("rule.added", {}, ""),
    ],
)
def test_what_was_noted_is_told_in_words(verb, data, said):
    assert wording.details(verb, data) == said


def test_the_page_tells_what_was_done_to_what_by_whom(client, alice, acme):
    audit(Access(acme, Role.OWNER, alice), "member.role", "bob@acme.example", role="admin")
    client.force_login(alice)
    page = client.get("/o/acme/settings/audit/").content.decode()
    assert "Gave a member another role" in page
    assert "as admin" in page
    assert "bob@acme.example" in page
    assert "member.role" not in page
