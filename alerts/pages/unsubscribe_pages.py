"""The page behind the link in every mail: no session, no key but the token in it."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from alerts.telling import unsubscribing
from sentinel_site.kit.problems import NotFound


@csrf_exempt  # mail programs post here by themselves (RFC 8058); the token says that they may
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """Ask whose mail is to stop; a POST stops it, without an address if there is one only."""
    now = timezone.now()
    said = unsubscribing.read(token, now)
    if said is None:
        raise NotFound
    present = unsubscribing.addresses(said)
    left = ""
    if request.method == "POST":
        only = present[0] if len(present) == 1 else ""
        left = request.POST.get("address", "") or only
        unsubscribing.leave(said, left, now)
    context = {"organization": said.tenant.name, "addresses": present, "left": left}
    return render(request, "alerts/unsubscribe.html", context)
