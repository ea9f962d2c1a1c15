from django.apps import AppConfig

from sentinel_site.kit import among  # noqa: F401  fields have its lookup from here on


class CloudsConfig(AppConfig):
    name = "clouds"
