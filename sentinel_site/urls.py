"""What is served below `/o/<slug>/`, from that organization's schema."""

from django.urls import URLPattern, URLResolver, include, path

handler404 = "sentinel_site.kit.problems.not_found"

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("accounts.urls")),
    path("api/v1/", include("accounts.api.urls")),
]
