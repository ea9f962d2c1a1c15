"""What is served from the public schema: accounts, agents' doors, the staff's admin."""

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.templatetags.static import static
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from sentinel_site.health import healthz, readyz, status


def favicon(request: HttpRequest) -> HttpResponse:
    """What browsers ask for on their own where no page names an icon."""
    return redirect(static("img/favicon.svg"), permanent=True)


handler404 = "sentinel_site.kit.problems.not_found"
handler500 = "sentinel_site.kit.problems.failed"

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("metrics.api.urls_public")),
    path("", include("clouds.urls_public")),
    path("", include("alerts.urls_public")),
    path("", include("accounts.urls_public")),
    path("favicon.ico", favicon),
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("status/", status, name="status"),
    path("api/schema/", SpectacularAPIView.as_view(), name="api-schema"),
    path("api/docs/", SpectacularSwaggerSplitView.as_view(url_name="api-schema"), name="api-docs"),
    path("staff/", admin.site.urls),
]
if settings.ANYMAIL.get("WEBHOOK_SECRET"):  # without one anybody could say that mail bounced
    urlpatterns.append(path("anymail/", include("anymail.urls")))
