"""A cloud group: how it is, what is wrong in it, and its servers."""

from __future__ import annotations

from collections import Counter

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from django.views.decorators.http import require_GET

from accounts.access import TenantRequest, fetch
from alerts import uptimes
from alerts.pages import queries, server_pages
from clouds import queries as clouds
from clouds import suppression
from clouds.models import CloudGroup, Server
from sentinel_site.kit.fragments import fragment

#: So many servers are listed, the worst first; the list of servers shows all.
LISTED = 50


@require_GET
def group(request: TenantRequest, pk: int) -> HttpResponse:
    row = fetch(request, CloudGroup, pk=pk)
    now = timezone.now()
    servers = server_pages.worst_first(clouds.fleet().filter(group=row))
    statuses = Counter(server.status for server in servers)
    releases = sorted({server.openstack_release for server in servers} - {""})
    context = {
        "group": row,
        "state": queries.worst_of(servers),
        "headline": _in_a_sentence(len(servers), statuses[Server.Status.SILENT]),
        "total": len(servers),
        "releases": releases,
        "incidents": SimpleLazyObject(lambda: queries.incidents(group_id=row.pk)),
        "cells": servers,
        "servers": SimpleLazyObject(
            lambda: server_pages.rows_of(request.tenant.pk, servers[:LISTED])
        ),
        "listed": LISTED,
        "suppression": suppression.active_for_group(row, now),
        "uptime": SimpleLazyObject(lambda: uptimes.of_group(row, now)),
    }
    template = fragment(
        request,
        "clouds/group.html",
        state="clouds/_group_state.html",
        servers="clouds/_servers.html",
        uptime="clouds/_group_uptime.html",
    )
    return render(request, template, context)


def _in_a_sentence(total: int, silent: int) -> str:
    if not total:
        return "No server is in it yet."
    if total == 1:
        return "Its one server is silent." if silent else "Its one server reports."
    return f"{total - silent} of {total} servers report."
