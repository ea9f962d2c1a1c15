"""Adding a server: the install line, its script and the agent itself."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from accounts import keys
from accounts.access import TenantRequest, audit, fetch, permit
from accounts.models import Key, Role
from agent_client.wire import VERSION
from clouds import install, queries
from clouds.agent_settings import change
from clouds.forms import AgentSettingsForm
from clouds.models import Server
from sentinel_site.kit.problems import NotFound


@require_http_methods(["GET", "POST"])
@never_cache
@permit(Role.ADMIN)
@transaction.atomic
def add_server(request: TenantRequest) -> HttpResponse:
    """POST makes the install line, whose token works once; the dialog then waits for the server."""
    if request.GET.get("fragment") == "waiting":
        pk = request.GET.get("key", "")
        tokens = Key.objects.filter(tenant=request.tenant, scope=Key.Scope.ENROL)
        token = fetch(request, tokens, Role.ADMIN, pk=int(pk) if pk.isdecimal() else 0)
        return render(request, "clouds/_add_server_waiting.html", _progress(token))
    context: dict[str, Any] = {"command": ""}
    if request.method == "POST":
        token, text = keys.issue_enrol_token(request.tenant, request.access.user, timezone.now())
        audit(request.access, "key.issued", token, scope=token.scope)
        context = {
            "command": install.line(text),
            "by_hand": install.by_hand(text),
            "expires_at": token.expires_at,
        }
        context |= _progress(token)
    template = "add_server.html" if request.headers.get("HX-Request") else "add.html"
    return render(request, f"clouds/{template}", context)


def _progress(token: Key) -> dict[str, Any]:
    """How far the server that this token is for has come. It is registered by its first report."""
    server = queries.by_agent(token.agent_id)
    return {
        "key": token,
        "server": server,
        "seen_at": server.registered_at if server else None,
        "services": [one.name for one in queries.projects(server)] if server else [],
        "expired": token.expires_at is not None and token.expires_at <= timezone.now(),
    }


@require_safe
def install_script(request: HttpRequest) -> HttpResponse:
    return HttpResponse(install.script(), content_type="text/x-shellscript; charset=utf-8")


@require_safe
def install_offers(request: HttpRequest) -> HttpResponse:
    """The files that the agent can be installed from, for configuration management."""
    offers = [
        {"kind": one.kind, "machine": one.machine, "name": one.name, "url": one.url}
        | {"sha256": one.sha256}
        for one in install.offers()
    ]
    return JsonResponse({"version": VERSION, "offers": offers})


@require_safe
def install_file(request: HttpRequest, name: str) -> HttpResponse:
    """The agent's wheel or one of its packages."""
    for offer in install.offers():
        if offer.name == name:
            return HttpResponse(offer.content(), content_type="application/octet-stream")
    offered = ", ".join(offer.name for offer in install.offers())
    raise NotFound(f"There is no such file here; offered are {offered}.")


@require_http_methods(["GET", "POST"])
def agent_settings(request: TenantRequest, pk: int) -> HttpResponse:
    """What the server's agent is asked for: the form of its agent tab, and where it goes."""
    row = fetch(request, Server.objects.select_related("agent_settings"), Role.MEMBER, pk=pk)
    now = timezone.now()
    form = (
        AgentSettingsForm(request.POST)
        if request.method == "POST"
        else AgentSettingsForm.of(getattr(row, "agent_settings", None), now)
    )
    if request.method == "POST" and form.is_valid():
        change(request.access, row, form.wanted(now), now)
        messages.success(request, f"{row.host} is asked for it with its next report.")
        return redirect(f"{reverse('clouds:server', args=[row.pk])}?tab=agent")
    context = {"server": row, "form": form}
    return render(
        request, "clouds/agent_settings.html", context, status=422 if form.errors else 200
    )
