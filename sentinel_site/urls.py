"""What is served below `/o/<slug>/`, from that organization's schema."""

from django.urls import URLPattern, URLResolver, path

urlpatterns: list[URLPattern | URLResolver] = []
