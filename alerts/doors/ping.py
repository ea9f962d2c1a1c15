"""The address that jobs call: no session, no key but the secret in it."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from accounts import queries as accounts
from alerts.doors import entry
from alerts.jobs import checkins
from alerts.jobs.checkins import Ping
from alerts.models.checkins import MOST_BODY
from sentinel_site.kit.tenancy import in_schema


@csrf_exempt
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def ping(request: HttpRequest, tenant: str, secret: str, said: str = "") -> HttpResponse:
    """`…/start`, `…/fail`, `…/<exit code>`, or nothing: it has run."""
    exit_code = int(said) if said.isdecimal() else None
    if said == "start":
        kind = Ping.START
    elif said == "fail" or exit_code:
        kind = Ping.FAIL
    else:
        kind = Ping.SUCCESS
    schema = accounts.schema_of(int(tenant))
    if schema is not None:
        with in_schema(schema):
            # who makes secrets up is answered before anything is waited for
            if checkins.is_known(secret):
                at, body = timezone.now(), _end(request)
                with entry.briefly():
                    found = checkins.note(secret, kind, at, exit_code=exit_code, body=body)
                if found:
                    return HttpResponse("OK\n", content_type="text/plain")
    text = "No check-in has this address; copy it from its page.\n"
    return HttpResponse(text, status=404, content_type="text/plain")


def _end(request: HttpRequest) -> bytes:
    return request.body[-MOST_BODY:] if request.method == "POST" else b""
