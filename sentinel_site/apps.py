from django.apps import AppConfig
from django.contrib.staticfiles.apps import StaticFilesConfig


class SiteConfig(AppConfig):
    name = "sentinel_site"

    def ready(self) -> None:
        from sentinel_site import checks  # noqa: F401  registers them


class StaticFiles(StaticFilesConfig):
    """Collects what pages use; of the API's document only one of its two viewers."""

    ignore_patterns = [*StaticFilesConfig.ignore_patterns, "redoc", "*.map"]
