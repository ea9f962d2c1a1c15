"""One OpenAPI document over both URL configurations."""

from __future__ import annotations

from typing import Any

from django.urls import include, path
from drf_spectacular.generators import SchemaGenerator


class Generator(SchemaGenerator):
    """Public paths as they are, an organization's below `/o/{organization}/`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        from sentinel_site import urls_public

        mounted = path("o/<slug:organization>/", include("sentinel_site.urls"))
        kwargs["patterns"] = [*urls_public.urlpatterns, mounted]
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
