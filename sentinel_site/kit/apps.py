from django.apps import AppConfig


class KitConfig(AppConfig):
    name = "sentinel_site.kit"
    label = "kit"
