from django.apps import AppConfig


class PluginsRegistryConfig(AppConfig):
    name = "plugins_registry"
