from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "sentinel_site"

    def ready(self) -> None:
        from sentinel_site import checks  # noqa: F401  registers them
