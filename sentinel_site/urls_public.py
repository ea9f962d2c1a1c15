"""What is served from the public schema: accounts, agents' doors, the staff's admin."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from sentinel_site.health import healthz, readyz

handler404 = "sentinel_site.kit.problems.not_found"

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("metrics.api.urls_public")),
    path("", include("clouds.urls_public")),
    path("", include("accounts.urls_public")),
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("api/schema/", SpectacularAPIView.as_view(), name="api-schema"),
    path("api/docs/", SpectacularSwaggerSplitView.as_view(url_name="api-schema"), name="api-docs"),
    path("staff/", admin.site.urls),
]
