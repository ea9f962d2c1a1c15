"""Pages of what is watched: the servers, one server, adding one."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from accounts import keys
from accounts.access import TenantRequest, audit, fetch, permit
from accounts.models import Key, Role
from clouds import install, queries
from clouds.models import Server
from sentinel_site.kit.problems import NotFound

TABS = ("overview", "alerts", "vitals", "services", "logs")


@require_GET
@permit(Role.VIEWER)
def server_list(request: TenantRequest) -> HttpResponse:
    words = request.GET.get("q", "").strip()
    status = request.GET.get("status", "")
    servers = queries.fleet()
    if words:
        servers = servers.filter(host__icontains=words)
    if status in Server.Status.values:
        servers = servers.filter(status=status)
    context = {
        "servers": servers,
        "q": words,
        "status": status,
        "statuses": Server.Status.choices,
        "may_manage": request.access.may(Role.ADMIN),
    }
    fragment = request.headers.get("HX-Request") and not request.headers.get("HX-Boosted")
    return render(request, "clouds/_servers.html" if fragment else "clouds/servers.html", context)


@require_GET
def server(request: TenantRequest, pk: int, tab: str = "overview") -> HttpResponse:
    if tab not in TABS:
        raise NotFound
    return render(request, "clouds/server.html", {**_server(request, pk), "tab": tab})


@require_GET
def header(request: TenantRequest, pk: int) -> HttpResponse:
    """The head of a server's page: its status and what it is made of."""
    return render(request, "clouds/_header.html", _server(request, pk))


@require_GET
def services(request: TenantRequest, pk: int) -> HttpResponse:
    return render(request, "clouds/_services.html", _server(request, pk))


def _server(request: TenantRequest, pk: int) -> dict[str, Any]:
    row = fetch(request, Server.objects.select_related("group"), pk=pk)
    return {
        "server": row,
        "projects": queries.projects(row),
        "may_manage": request.access.may(Role.ADMIN),
    }


@require_POST
@never_cache
@permit(Role.ADMIN)
def add_server(request: TenantRequest) -> HttpResponse:
    """A dialog with the install line; its token works once, within an hour."""
    token, text = keys.issue_enrol_token(request.tenant, request.access.user, timezone.now())
    audit(request.access, "key.issued", token, scope=token.scope)
    return render(
        request,
        "clouds/add_server.html",
        {"line": install.line(text), "token": token, "server": None},
    )


@require_GET
def add_server_waiting(request: TenantRequest, pk: int) -> HttpResponse:
    """Whether the server that spent this token has reported yet."""
    tokens = Key.objects.filter(tenant=request.tenant, scope=Key.Scope.ENROL)
    token = fetch(request, tokens, Role.ADMIN, pk=pk)
    context = {
        "token": token,
        "server": queries.by_agent(token.agent_id),
        "is_expired": token.used_at is None and token.expires_at <= timezone.now(),
    }
    return render(request, "clouds/_add_server_waiting.html", context)


# -- public -------------------------------------------------------------------


@require_GET
def install_script(request: HttpRequest) -> HttpResponse:
    return HttpResponse(install.script(), content_type="text/x-shellscript; charset=utf-8")


@require_GET
def install_wheel(request: HttpRequest, name: str) -> HttpResponse:
    found = install.wheel()
    if name != found.name:
        raise NotFound(f"The agent offered here is {found.name}.")
    return HttpResponse(found.content, content_type="application/zip")
