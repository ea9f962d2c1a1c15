"""DRF sees the access that the middleware settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import SessionAuthentication
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from accounts.access import Access
from accounts.models import Role
from sentinel_site.kit.problems import NotAuthenticated, NotPermitted

if TYPE_CHECKING:
    from rest_framework.views import APIView


def access_of(request: Request) -> Access:
    """What authentication settled. Raises NotAuthenticated."""
    access = cast("Access | None", request.auth)
    if access is None:
        raise NotAuthenticated
    return access


class AccessAuthentication(SessionAuthentication):
    """The key or session below `/o/<slug>/`; sessions must bring a CSRF token with writes."""

    def authenticate(self, request: Request) -> tuple[Any, Access] | None:
        access: Access | None = getattr(request._request, "access", None)
        if access is None:
            return None
        if access.user is not None:
            self.enforce_csrf(request)
        return access.user or access.key, access

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class AccessScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = AccessAuthentication
    name = "key"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "A key of scope read or admin; or a session.",
        }


class AtLeast(BasePermission):
    """Reads need `read`, writes need `write`; each role may what the lesser ones may."""

    read = Role.VIEWER
    write = Role.MEMBER

    def has_permission(self, request: Request, view: APIView) -> bool:
        access = access_of(request)
        least = self.read if request.method in SAFE_METHODS else self.write
        if not access.may(least):
            raise NotPermitted(f"This needs the role {least.label.lower()}.", needs=least.value)
        return True


class AtLeastViewer(AtLeast):
    """Viewers read, members write: what most resources want."""


class AtLeastAdmin(AtLeast):
    """Keys, members and notification channels: all see them, admins change them."""

    write = Role.ADMIN
