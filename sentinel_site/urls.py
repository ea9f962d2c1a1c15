"""What is served below `/o/<slug>/`, from that organization's schema."""

from django.urls import URLPattern, URLResolver, include, path

from alerts.views import dashboard

handler404 = "sentinel_site.kit.problems.not_found"

urlpatterns: list[URLPattern | URLResolver] = [
    path("", dashboard, name="dashboard"),
    path("", include("clouds.urls")),
    path("", include("metrics.urls")),
    path("", include("alerts.urls")),
    path("", include("accounts.urls")),
    path("api/v1/", include("accounts.api.urls")),
    path("api/v1/", include("clouds.api.urls")),
    path("api/v1/", include("metrics.api.urls")),
    path("api/v1/", include("alerts.api.urls")),
]
