"""What is served from the public schema: accounts, agents' doors, the staff's admin."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

handler404 = "sentinel_site.kit.problems.not_found"

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("accounts.urls_public")),
    path("staff/", admin.site.urls),
]
