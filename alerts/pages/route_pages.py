"""Routes: who is told of what, and a preview that says why."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from accounts.access import TenantRequest, fetch, permit
from accounts.models import Role
from alerts.dispatching import routes
from alerts.models import Incident, NotificationChannel, Route, Severity
from alerts.pages.forms import RouteForm
from clouds.models import CloudGroup


@require_GET
@permit(Role.VIEWER)
def route_list(request: TenantRequest) -> HttpResponse:
    found = routes.everything()
    what, of = _asked(request)
    context = {
        "routes": [(route, routes.in_words(route)) for route in found],
        "decisions": routes.decide(found, what, NotificationChannel.objects.all(), timezone.now()),
        "asked": {
            "incident": of,
            "severity": what.severity,
            "group": next(iter(what.groups), None),
            "service": ", ".join(sorted(what.services)),
        },
        "severities": Severity.choices,
        "groups": CloudGroup.objects.all(),
        "may_edit": request.access.may(Role.ADMIN),
    }
    return render(request, "alerts/routes.html", context)


def _asked(request: HttpRequest) -> tuple[routes.About, Incident | None]:
    """What the preview is of: an incident, or what was chosen."""
    number = request.GET.get("incident", "")
    if number.isdecimal() and len(number) < 19:
        incident = Incident.objects.filter(pk=int(number)).first()
        if incident is not None:
            return routes.about(incident), incident
    severity, group = request.GET.get("severity", ""), request.GET.get("group", "")
    return (
        routes.About(
            Severity(severity if severity in Severity.values else Severity.CRITICAL),
            frozenset([int(group)] if group.isdecimal() and len(group) < 19 else []),
            frozenset(name for name in [request.GET.get("service", "").strip()] if name),
        ),
        None,
    )


@permit(Role.ADMIN)
def route_new(request: TenantRequest) -> HttpResponse:
    return _route_form(request, Route())


def route_edit(request: TenantRequest, pk: int) -> HttpResponse:
    return _route_form(request, fetch(request, Route, Role.ADMIN, pk=pk))


def _route_form(request: TenantRequest, route: Route) -> HttpResponse:
    form = RouteForm(request.POST or None, instance=route)
    if request.method == "POST" and form.is_valid():
        groups = [group.pk for group in form.cleaned_data["groups"]]
        routes.save_route(request.access, form.instance, groups, form.steps())
        messages.success(request, f"{form.instance.name} is saved.")
        return redirect("alerts:routes")
    context = {"form": form, "route": route if route.pk else None}
    return render(request, "alerts/route_form.html", context, status=422 if form.errors else 200)


@require_POST
def route_delete(request: TenantRequest, pk: int) -> HttpResponse:
    route = fetch(request, Route, Role.ADMIN, pk=pk)
    routes.delete_route(request.access, route)
    messages.success(request, f"{route.name} was removed.")
    return redirect("alerts:routes")
