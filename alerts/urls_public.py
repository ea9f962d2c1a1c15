"""What jobs and other people's alerting tools call; address or key names the organization."""

from django.urls import path, re_path

from alerts.api import alerta, alertmanager
from alerts.doors import ping
from alerts.pages import unsubscribe_pages

urlpatterns = [
    re_path(r"^ping/(?P<tenant>[0-9]{1,9})-(?P<secret>[\w-]{1,40})$", ping.ping, name="ping"),
    re_path(
        r"^ping/(?P<tenant>[0-9]{1,9})-(?P<secret>[\w-]{1,40})/(?P<said>start|fail|[0-9]{1,3})$",
        ping.ping,
        name="ping-said",
    ),
    path("unsubscribe/<str:token>/", unsubscribe_pages.unsubscribe, name="unsubscribe"),
    path("alerta/config", alerta.ConfigView.as_view(), name="alerta-config"),
    path("alerta/management/status", alerta.StatusView.as_view(), name="alerta-status"),
    path("alerta/userinfo", alerta.UserInfoView.as_view(), name="alerta-userinfo"),
    path("alerta/alert", alerta.ReceiveView.as_view(), name="alerta-alert"),
    path("alerta/alerts", alerta.AlertsView.as_view(), name="alerta-alerts"),
    path("alerta/alerts/count", alerta.CountView.as_view(), name="alerta-count"),
    path("alerta/alerts/history", alerta.HistoryView.as_view(), name="alerta-history"),
    path("alerta/alert/<str:identity>", alerta.AlertView.as_view(), name="alerta-one"),
    re_path(
        r"^alerta/alert/(?P<identity>[^/]+)/(?:action|status)$",
        alerta.ActionView.as_view(),
        name="alerta-action",
    ),
    path("alerta/alert/<str:identity>/note", alerta.NoteView.as_view(), name="alerta-note"),
    path("alerta/heartbeat", alerta.HeartbeatsView.as_view(), name="alerta-heartbeat"),
    path("alerta/heartbeats", alerta.HeartbeatsView.as_view(), name="alerta-heartbeats"),
    path("alerta/heartbeat/<str:identity>", alerta.HeartbeatView.as_view()),
    re_path(r"^alerta/(?P<path>.*)$", alerta.UnknownView.as_view()),
    path("alertmanager/api/v2/alerts", alertmanager.AlertsView.as_view(), name="alertmanager"),
    path("alertmanager/api/v1/alerts", alertmanager.AlertsView.as_view()),
    path("alertmanager/webhook", alertmanager.WebhookView.as_view(), name="alertmanager-webhook"),
]
