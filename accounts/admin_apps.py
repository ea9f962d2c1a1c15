"""The admin as an installed app; apart from its site, which needs models that are loaded later."""

from django.contrib.admin.apps import AdminConfig as DjangoAdminConfig


class AdminConfig(DjangoAdminConfig):
    default_site = "accounts.admin_site.StaffSite"
