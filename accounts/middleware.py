"""The tenant as a mount point: `/o/<slug>/…` is served from that organization's schema."""

from __future__ import annotations

import re
from collections.abc import Callable

import structlog
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import set_script_prefix, set_urlconf
from django_tenants.middleware.main import TenantMainMiddleware

from accounts import keys
from accounts.access import KEY_ROLES, Access
from accounts.models import Key, Membership, Role
from sentinel_site.kit import problems
from sentinel_site.kit.tenancy import MOUNT, connection, mount_path

_MOUNTED = re.compile(rf"{MOUNT}(?P<slug>[^/]*)(?P<rest>/.*)?")


class TenantMiddleware(TenantMainMiddleware):
    """Settle tenant, schema, URL prefix and URL configuration for every request, then reset all.

    Below a mount point it also settles who asks: a key in `Authorization`, else the session.
    Whoever has no right there sees the same 404, whether the organization exists or not.
    """

    get_response: Callable[[HttpRequest], HttpResponse]

    def __call__(self, request: HttpRequest) -> HttpResponse:
        root = request.META.get("SCRIPT_NAME", "").rstrip("/") + "/"
        connection.set_schema_to_public()
        set_script_prefix(root)
        try:
            return self._serve(request, root)
        finally:
            connection.set_schema_to_public()
            set_script_prefix(root)
            set_urlconf(None)
            structlog.contextvars.unbind_contextvars("tenant")

    def _serve(self, request: HttpRequest, root: str) -> HttpResponse:
        mounted = _MOUNTED.fullmatch(request.path_info)
        if mounted is None:
            self._route(request, settings.PUBLIC_SCHEMA_URLCONF)
            return self.get_response(request)
        if mounted["rest"] is None:
            return HttpResponseRedirect(request.path + "/")
        request.path_info = mounted["rest"]
        refusal = self._settle(request, mounted["slug"])
        if refusal is not None:
            return refusal
        set_script_prefix(root.rstrip("/") + mount_path(mounted["slug"]))
        self._route(request, settings.ROOT_URLCONF)
        return self.get_response(request)

    @staticmethod
    def _route(request: HttpRequest, urlconf: str) -> None:
        request.urlconf = urlconf
        set_urlconf(urlconf)

    def _settle(self, request: HttpRequest, slug: str) -> HttpResponse | None:
        """Put tenant and access on the request and enter the schema, or say what to answer."""
        try:
            access = _access_by_key(request, slug) or _access_by_session(request, slug)
        except problems.Problem as problem:
            self._route(request, settings.PUBLIC_SCHEMA_URLCONF)
            return problems.answer(request, problem)
        if access is None:
            if problems.wants_json(request):
                return problems.response(problems.NotAuthenticated())
            return redirect_to_login(request.get_full_path(), settings.LOGIN_URL)
        request.access = access  # type: ignore[attr-defined]
        request.tenant = access.tenant  # type: ignore[attr-defined]
        connection.set_tenant(access.tenant)
        structlog.contextvars.bind_contextvars(tenant=slug)
        return None


def _access_by_key(request: HttpRequest, slug: str) -> Access | None:
    text = keys.from_header(request.headers.get("Authorization", ""))
    if text is None or not request.path_info.startswith("/api/"):
        return None
    holder = keys.find(text)
    if holder.slug != slug:
        raise problems.NotFound
    if holder.scope not in KEY_ROLES:
        raise keys.WrongScope(f"It has the scope {holder.scope}; this needs read or admin.")
    key = Key.objects.select_related("tenant").get(pk=holder.id)
    return Access(key.tenant, KEY_ROLES[Key.Scope(holder.scope)], key=holder)


def _access_by_session(request: HttpRequest, slug: str) -> Access | None:
    if not request.user.is_authenticated:
        return None
    if "\0" in slug:
        raise problems.NotFound
    membership = (
        Membership.objects.select_related("tenant")
        .filter(user=request.user, tenant__slug=slug, tenant__provisioned_at__isnull=False)
        .first()
    )
    if membership is None:
        raise problems.NotFound
    return Access(membership.tenant, Role(membership.role), user=request.user)
