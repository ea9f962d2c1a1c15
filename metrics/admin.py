"""For our staff: who knocks with an account key that nobody has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from metrics import isolation
from metrics.knocks import NOBODY
from metrics.models import Knock

if TYPE_CHECKING:  # Django's own class takes no parameter
    ModelAdmin = admin.ModelAdmin[Knock]
else:
    ModelAdmin = admin.ModelAdmin


@admin.register(Knock)
class KnockAdmin(ModelAdmin):
    """Read only, and only what belongs to no organization: the rest is walled off."""

    list_display = ["hint", "host", "count", "first_at", "last_at"]
    list_display_links = None
    search_fields = ["host", "hint"]
    ordering = ["-last_at"]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        with isolation.only(NOBODY):
            answer = super().changelist_view(request, extra_context)
            return answer.render() if isinstance(answer, TemplateResponse) else answer

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Knock | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Knock | None = None) -> bool:
        return False
