"""The agents' doors. The original agents may double the first slash and follow no redirect."""

from django.urls import path, re_path

from metrics.api.doors import (
    EnrolView,
    LegacyLogsView,
    LegacyMetricsView,
    PluginDownloadView,
    ReportsView,
)

PLUGIN = (
    r"^/*plugins/download/(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]{0,99})"
    r"-(?P<version>[0-9][A-Za-z0-9_.+]{0,39})\.zip$"
)

urlpatterns = [
    path("api/v1/reports", ReportsView.as_view(), name="api-reports"),
    path("api/v1/enrol", EnrolView.as_view(), name="api-enrol"),
    path("metrics", LegacyMetricsView.as_view(), name="legacy-metrics"),
    path("logs", LegacyLogsView.as_view(), name="legacy-logs"),
    re_path(r"^/*metrics/*$", LegacyMetricsView.as_view(schema=None)),
    re_path(r"^/*logs/*$", LegacyLogsView.as_view(schema=None)),
    re_path(PLUGIN, PluginDownloadView.as_view(), name="legacy-plugin-download"),
]
