"""What is served below `/o/<slug>/`, from that organization's schema."""

from django.urls import URLPattern, URLResolver, include, path

from alerts.pages import group_pages, server_pages, suppression_pages
from clouds.urls import urlpatterns as clouds

handler404 = "sentinel_site.kit.problems.not_found"
handler500 = "sentinel_site.kit.problems.failed"

servers = [
    *clouds,
    path("servers/", server_pages.server_list, name="servers"),
    path("servers/<int:pk>/", server_pages.server, name="server"),
    path("groups/<int:pk>/", group_pages.group, name="group"),
    path("servers/<int:pk>/classify/", suppression_pages.classify, name="classify"),
    path("servers/<int:pk>/remove/", suppression_pages.remove, name="remove"),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", server_pages.dashboard, name="dashboard"),
    path("", include((servers, "clouds"))),
    path("", include("metrics.urls")),
    path("", include("alerts.urls")),
    path("", include("accounts.urls")),
    path("api/v1/", include("accounts.api.urls")),
    path("api/v1/", include("clouds.api.urls")),
    path("api/v1/", include("metrics.api.urls")),
    path("api/v1/", include("alerts.api.urls")),
]
