"""Pages of rules beside list and form: preview, file, versions, what an alert was judged by."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from accounts import queries as accounts
from accounts.access import TenantRequest, fetch, permit
from accounts.models import Role
from alerts.engines import previews, traces
from alerts.models import Alert, Rule, RuleVersion
from alerts.pages.forms import RuleForm
from alerts.rulebook import rulefiles, rules


@require_POST
@permit(Role.VIEWER)
def preview(request: TenantRequest) -> HttpResponse:
    """What the rule in the form would have raised; nothing is stored."""
    pk = request.POST.get("rule", "")
    known = Rule.objects.filter(pk=int(pk)).first() if pk.isdecimal() and len(pk) < 19 else None
    form = RuleForm(request.POST, instance=known or Rule())
    named = "name" not in request.POST or bool(request.POST["name"])
    form.fields["name"].required = False
    if not form.is_valid():
        return render(request, "alerts/_preview.html", {"form": form, "named": named})
    span = request.POST.get("span") or "24h"
    found = previews.preview(request.tenant, form.instance, timezone.now(), span)
    context = {"preview": found, "rule": form.instance, "spans": previews.SPANS}
    return render(request, "alerts/_preview.html", context)


@permit(Role.VIEWER)
def rule_file(request: TenantRequest) -> HttpResponse:
    """The rules as a file: what applying another would change, and applying it."""
    text, prune = request.POST.get("text", ""), bool(request.POST.get("prune"))
    context = {"text": text, "prune": prune, "may_edit": request.access.may(Role.MEMBER)}
    if request.method != "POST":
        context["text"] = rulefiles.write(_all())
        return render(request, "alerts/rule_file.html", context)
    try:
        wanted = rulefiles.read(text)
    except rulefiles.BadRules as bad:
        context["mistakes"] = bad.members["mistakes"]
        return render(request, "alerts/rule_file.html", context, status=422)
    if "apply" not in request.POST:
        context["changes"] = rulefiles.diff(wanted, prune)
        return render(request, "alerts/rule_file.html", {**context, "compared": True})
    return _apply(request, wanted, prune)


@permit(Role.MEMBER)
def _apply(request: TenantRequest, wanted: list[Rule], prune: bool) -> HttpResponse:
    done = rules.apply_rules(request.access, wanted, timezone.now(), prune)
    many = {0: "Nothing had to be changed.", 1: "One rule was changed."}
    messages.success(request, many.get(len(done), f"{len(done)} rules were changed."))
    return redirect("alerts:rules")


@require_GET
@permit(Role.VIEWER)
def download(request: TenantRequest) -> HttpResponse:
    return HttpResponse(
        rulefiles.write(_all()),
        content_type="application/yaml; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{request.tenant.slug}-rules.yaml"'},
    )


def _all() -> list[Rule]:
    return list(Rule.objects.select_related("group", "server"))


@require_GET
def versions(request: TenantRequest, pk: int) -> HttpResponse:
    """Who changed a rule, when, and what."""
    rule = fetch(request, Rule, Role.VIEWER, pk=pk)
    rows = list(RuleVersion.objects.filter(rule=rule)[:100])
    people = accounts.people(row.by for row in rows if row.by is not None)
    older: list[RuleVersion | None] = [*rows[1:], None]
    listed = [
        {
            "row": row,
            "by": people.get(row.by or 0),
            "changes": traces.changes(before.body if before else {}, row.body) if before else [],
        }
        for row, before in zip(rows, older, strict=True)
    ]
    return render(request, "alerts/rule_versions.html", {"rule": rule, "versions": listed})


@require_GET
def judgements(request: TenantRequest, pk: int) -> HttpResponse:
    """What an alert was judged by: the rule as it was, the numbers it saw, what was decided."""
    alert = fetch(request, Alert, Role.VIEWER, pk=pk)
    return render(request, "alerts/judgements.html", traces.of(alert))
