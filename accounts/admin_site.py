"""The staff's admin: two-factor required, in the public schema only."""

from __future__ import annotations

from typing import Any

from allauth.mfa.utils import is_mfa_enabled
from django.contrib.admin import AdminSite
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from sentinel_site.kit.problems import NotFound


class StaffSite(AdminSite):
    """Staff with a second factor; allauth asks for it at sign-in once it is set up."""

    site_header = site_title = "Sentinella staff"

    def has_permission(self, request: HttpRequest) -> bool:
        return super().has_permission(request) and is_mfa_enabled(request.user)

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Sign-in is allauth's; staff without a second factor set one up first."""
        if request.user.is_authenticated and request.user.is_staff:
            return redirect(reverse("mfa_index"))
        if request.user.is_authenticated:
            raise NotFound
        return redirect_to_login(request.GET.get("next", reverse("admin:index")))
