"""What is served from the public schema: accounts, agents' doors, the staff's admin."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("allauth.urls")),
    path("staff/", admin.site.urls),
]
