from django.urls import path
from rest_framework.routers import SimpleRouter

from alerts.api.checkins import CheckInViewSet
from alerts.api.deliveries import DeliveryViewSet, NotificationViewSet
from alerts.api.notices import NoticesView
from alerts.api.removal import RemovalView
from alerts.api.routes import RouteViewSet
from alerts.api.uptime import GroupUptimeView, ServerUptimeView, UptimeReportView
from alerts.api.views import AlertViewSet, ChannelViewSet, IncidentViewSet, RuleViewSet

router = SimpleRouter()
router.register("rules", RuleViewSet, "api-rule")
router.register("alerts", AlertViewSet, "api-alert")
router.register("incidents", IncidentViewSet, "api-incident")
router.register("channels", ChannelViewSet, "api-channel")
router.register("deliveries", DeliveryViewSet, "api-delivery")
router.register("notifications", NotificationViewSet, "api-notification")
router.register("routes", RouteViewSet, "api-route")
router.register("check-ins", CheckInViewSet, "api-checkin")
urlpatterns = [
    *router.urls,
    path("servers/<int:pk>/remove/", RemovalView.as_view(), name="api-server-remove"),
    path("servers/<int:pk>/uptime/", ServerUptimeView.as_view(), name="api-server-uptime"),
    path("cloud-groups/<int:pk>/uptime/", GroupUptimeView.as_view(), name="api-group-uptime"),
    path("notices/", NoticesView.as_view(), name="api-notices"),
    path("uptime/", UptimeReportView.as_view(), name="api-uptime"),
]
