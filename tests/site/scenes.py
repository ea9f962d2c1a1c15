"""Scenes: each page and fragment with its other faces, and its drawing as somebody sees it."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace as Row
from typing import Any

from django.conf import settings as django_settings
from django.template.loader import get_template
from django.test import RequestFactory
from django.urls import ResolverMatch, clear_script_prefix, set_script_prefix, set_urlconf

from accounts.access import Access
from accounts.forms import KeyForm, OrganizationForm
from accounts.models import AuditEntry, Key, Membership, Role
from alerts import notifiers
from alerts.models import Rule
from sentinel_site.kit.problems import Problem
from tests.site.cloud import (
    ACME,
    ALERTS,
    ALICE,
    BOB,
    CLOSED,
    CMP_7,
    CMP_12,
    CTL_1,
    FINE,
    GRU,
    INCIDENTS,
    LAB,
    LINES,
    NOTICES,
    NOW,
    RABBIT,
    SCL,
    SILENT,
    TAKEN,
    TRACEBACK,
    make_line,
    make_server,
)
from tests.site.contexts import (
    ADD,
    ALICES,
    CASCADE,
    CHANNELS,
    DASHBOARD,
    HISTORY,
    INVITATION,
    KEYS,
    LOGS,
    RULES,
    SERVER,
    SERVERS,
    SHELL,
    WAITING,
    WRONG,
    channel_form,
    rule_form,
)

#: scene -> (template, name of the current URL, context): each page, and its other faces.
SCENES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "landing": ("landing.html", "landing", {}),
    "dashboard": ("dashboard.html", "dashboard", DASHBOARD),
    "dashboard-fine": (
        "dashboard.html",
        "dashboard",
        {
            **DASHBOARD,
            "incidents": [],
            "headline": "All 52 servers are fine",
            "subline": "The last check ran 3 s ago.",
            "closed_at": NOW - timedelta(days=2),
        },
    ),
    "dashboard-first": ("dashboard.html", "dashboard", {**DASHBOARD, "total": 0}),
    "servers": (
        "clouds/servers.html",
        "clouds:servers",
        {
            "total": 52,
            "groups": [GRU, SCL],
            "filters": {"q": "", "group": "1", "status": ""},
            "query": "group=1",
            "headline": "50 of 52 servers are up",
            "servers": SERVERS,
            "next_url": "?after=9",
        },
    ),
    "servers-none": (
        "clouds/servers.html",
        "clouds:servers",
        {
            "total": 0,
            "groups": [],
            "filters": {},
            "query": "",
            "headline": "No server yet",
            "servers": [],
        },
    ),
    "palette": ("clouds/_palette.html", "clouds:servers", {"servers": [CTL_1, CMP_7]}),
    "server": ("clouds/server.html", "clouds:server", SERVER),
    "group": (
        "clouds/group.html",
        "clouds:group",
        {
            "group": GRU,
            "state": "critical",
            "headline": "48 of 49 servers report.",
            "total": 49,
            "releases": ["2025.1 Epoxy"],
            "incidents": INCIDENTS,
            "cells": [CTL_1, CMP_12, *FINE],
            "servers": SERVERS,
            "listed": 50,
            "suppression": None,
            "uptime": {},
        },
    ),
    "group-empty": (
        "clouds/group.html",
        "clouds:group",
        {"group": LAB, "state": "ok", "headline": "No server is in it yet.", "total": 0},
    ),
    "server-bare": (
        "clouds/server.html",
        "clouds:server",
        {
            "server": make_server(9, "new-1", group=None),
            "tab": "overview",
            "range": 3600,
            "seen_at": None,
            "counts": {"alerts": 0, "services_down": 0},
            "charts": SERVER["charts"],
            "spans": [],
            "closed_count": 0,
            "incidents": [],
            "open_by_severity": {},
            "now": [],
            "last_alerts": [],
            "projects": [],
        },
    ),
    "server-alerts": ("clouds/server.html", "clouds:server", {**SERVER, "tab": "alerts"}),
    "server-vitals": ("clouds/server.html", "clouds:server", {**SERVER, "tab": "vitals"}),
    "custom": ("clouds/_custom.html", "clouds:server", {**SERVER, "tab": "vitals"}),
    "server-services": ("clouds/server.html", "clouds:server", {**SERVER, "tab": "services"}),
    "server-agent": ("clouds/server.html", "clouds:server", {**SERVER, "tab": "agent"}),
    "server-logs": ("clouds/server.html", "clouds:server", {**SERVER, **LOGS, "tab": "logs"}),
    "add-server": ("clouds/add.html", "clouds:add-server", ADD),
    "add-server-empty": ("clouds/add.html", "clouds:add-server", {"command": ""}),
    "add-server-dialog": ("clouds/add_server.html", "clouds:add-server", ADD),
    "waiting-done": (
        "clouds/_add_server_waiting.html",
        "clouds:add-server",
        {
            **WAITING,
            "key": Key(scope="enrol", used_at=NOW),
            "server": CTL_1,
            "seen_at": NOW,
            "services": ["nova-compute", "libvirtd"],
        },
    ),
    "waiting-expired": (
        "clouds/_add_server_waiting.html",
        "clouds:add-server",
        {**WAITING, "expired": True},
    ),
    "incidents": (
        "alerts/list.html",
        "alerts:list",
        {
            "state": "open",
            "severity": "",
            "open_count": 3,
            "closed_count": 41,
            "title": "3 incidents are open",
            "query": "state=open",
            "incidents": INCIDENTS,
            "next_url": "",
        },
    ),
    "incidents-taken": (
        "alerts/_list.html",
        "alerts:list",
        {"state": "open", "incidents": [RABBIT, TAKEN, SILENT]},
    ),
    "incidents-closed": (
        "alerts/list.html",
        "alerts:list",
        {
            "state": "closed",
            "severity": "",
            "open_count": 3,
            "closed_count": 41,
            "title": "41 incidents were closed",
            "query": "state=closed",
            "incidents": [CLOSED],
            "next_url": "?before=300",
        },
    ),
    "incidents-none": (
        "alerts/list.html",
        "alerts:list",
        {
            "state": "open",
            "severity": "",
            "open_count": 0,
            "closed_count": 0,
            "title": "Nothing is wrong",
            "query": "",
            "incidents": [],
        },
    ),
    "bell": ("alerts/_bell.html", "alerts:notices", {"notices": NOTICES}),
    "incident": (
        "alerts/incident.html",
        "alerts:incident",
        {
            "incident": RABBIT,
            "alerts": ALERTS,
            "figures": [
                {"label": "Memory used", "value": "93 %", "note": "threshold 90 %"},
                {"label": "For", "value": "20 s", "note": ""},
            ],
            "lines": LINES[:2],
            "history": HISTORY,
            "charts": [
                {
                    "id": "evidence-1",
                    "title": "Memory",
                    "url": "/chart/memory",
                    "unit": "percent",
                    "threshold": 90,
                }
            ],
        },
    ),
    "incident-cause": ("alerts/incident.html", "alerts:incident", CASCADE),
    "incident-cause-again": (
        "alerts/_incident.html",
        "alerts:incident",
        {**CASCADE, "symptom_count": 98},
    ),
    "incident-closed": (
        "alerts/incident.html",
        "alerts:incident",
        {
            "incident": CLOSED,
            "alerts": [],
            "figures": [],
            "lines": [],
            "history": [
                Row(
                    at=NOW,
                    text="Resolved by itself",
                    by=None,
                    kind="resolved",
                    severity="",
                    note="",
                )
            ],
            "charts": [],
        },
    ),
    "rules": ("alerts/rules.html", "alerts:rules", {"rules": RULES, "may_edit": True}),
    "rules-viewer": ("alerts/rules.html", "alerts:rules", {"rules": RULES, "may_edit": False}),
    "rule": (
        "alerts/rule_form.html",
        "alerts:rule",
        {"form": rule_form(RULES[0]), "rule": RULES[0], "labels": []},
    ),
    "rule-new": (
        "alerts/rule_form.html",
        "alerts:rule-new",
        {"form": rule_form(Rule()), "rule": None, "labels": []},
    ),
    "channels": (
        "alerts/channels.html",
        "alerts:channels",
        {"channels": CHANNELS, "kinds": notifiers.NOTIFIERS, "may_manage": True},
    ),
    "channel": (
        "alerts/channel_form.html",
        "alerts:channel",
        {
            "form": channel_form(CHANNELS[1]),
            "kind": notifiers.by_name("slack"),
            "channel": CHANNELS[1],
        },
    ),
    "logs": ("metrics/logs.html", "metrics:logs", LOGS),
    "logs-more": (
        "metrics/_logs.html",
        "metrics:logs",
        {**LOGS, "events": [make_line(0, "error", "nova-compute", TRACEBACK), *LINES]},
    ),
    "logs-none": ("metrics/logs.html", "metrics:logs", {**LOGS, "events": [], "older_url": ""}),
    "logs-older": ("metrics/_older.html", "metrics:logs", LOGS),
    "members": (
        "accounts/members.html",
        "accounts:members",
        {
            "members": [ALICES, Membership(pk=2, user=BOB, tenant=ACME, role="member")],
            "invitations": [INVITATION],
            "form": WRONG,
            "roles": list(Role),
            "may_manage": True,
        },
    ),
    "audit": (
        "accounts/audit.html",
        "accounts:audit",
        {
            "entries": [
                AuditEntry(
                    tenant=ACME, at=NOW, user=ALICE, verb="key.issued", subject="snt_k3q9x2m4p7aa_…"
                )
            ]
        },
    ),
    "keys": (
        "accounts/keys.html",
        "accounts:keys",
        {
            "keys": KEYS,
            "form": KeyForm(),
            "secret": "snt_k3q9x2m4p7aa_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcd",
            "issued": KEYS[0],
            "may_manage": True,
        },
    ),
    "knocks": (
        "metrics/_knocks.html",
        "metrics:knocks",
        {
            "knocks": [
                Row(hint="…a1b2", host="old-1", count=12, first_at=NOW, last_at=NOW),
            ]
        },
    ),
    "organizations": (
        "accounts/organizations.html",
        "home",
        {"organizations": [{"membership": ALICES, "url": "/o/acme/"}], "form": OrganizationForm()},
    ),
    "invitation": (
        "accounts/invitation.html",
        "invitation",
        {"invitation": INVITATION, "has_account": True},
    ),
    "404": ("404.html", "landing", {}),
    "403": ("403.html", "landing", {"problem": Problem("This needs the role admin.")}),
    "500": ("500.html", "landing", {}),
    "503": ("503.html", "landing", {}),
    "400": ("400.html", "landing", {}),
    "unsubscribe": (
        "alerts/unsubscribe.html",
        "unsubscribe",
        {
            "organization": "Andes Cloud",
            "addresses": [
                "ops@andes.example",
                "whoever-is-on-call-at-night-in-gru-prod@operations.andes.example",
            ],
            "left": "",
        },
    ),
    "problem": (
        "components/problem.html",
        "alerts:list",
        {"problem": Problem("Someone else has it.")},
    ),
}


PUBLIC = ("landing", "home", "invitation", "unsubscribe")


def draw(scene: str, role: Role = Role.OWNER) -> str:
    """The HTML of a scene, as that role sees it at its own address."""
    template, view_name, context = SCENES[scene]
    public = view_name in PUBLIC
    request = RequestFactory().get("/")
    request.user = ALICE
    request.tenant = ACME
    request.access = Access(ACME, role, ALICE)
    request.htmx = False
    namespace, _, name = view_name.rpartition(":")
    request.resolver_match = ResolverMatch(
        draw, (), {}, url_name=name, namespaces=[namespace] if namespace else []
    )
    set_urlconf(django_settings.PUBLIC_SCHEMA_URLCONF if public else django_settings.ROOT_URLCONF)
    if not public:
        set_script_prefix("/o/acme/")
    try:
        return get_template(template).render({"shell": SHELL, "user": ALICE, **context}, request)
    finally:
        set_urlconf(None)
        clear_script_prefix()
