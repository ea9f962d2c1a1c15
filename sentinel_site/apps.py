from django.apps import AppConfig
from django.contrib.staticfiles.apps import StaticFilesConfig


class SiteConfig(AppConfig):
    name = "sentinel_site"

    def ready(self) -> None:
        from sentinel_site import checks  # noqa: F401  registers them


class StaticFiles(StaticFilesConfig):
    """Collects what is served: of the API's document one viewer, and no browsable API."""

    ignore_patterns = [*StaticFilesConfig.ignore_patterns, "redoc", "rest_framework"]
