"""What is wrong, below an organization's mount point."""

from django.urls import path

from alerts import (
    checkin_pages,
    delivery_pages,
    route_pages,
    rule_pages,
    suppression_pages,
    uptime_pages,
    views,
)

app_name = "alerts"
urlpatterns = [
    path("incidents/", views.incident_list, name="list"),
    path("incidents/<int:pk>/", views.incident, name="incident"),
    path("incidents/<int:pk>/acknowledge/", views.acknowledge, name="acknowledge"),
    path("incidents/<int:pk>/resolve/", views.resolve, name="resolve"),
    path("rules/", views.rule_list, name="rules"),
    path("rules/new/", views.rule_new, name="rule-new"),
    path("rules/preview/", rule_pages.preview, name="rule-preview"),
    path("rules/file/", rule_pages.rule_file, name="rule-file"),
    path("rules/file/download/", rule_pages.download, name="rule-download"),
    path("rules/<int:pk>/", views.rule_edit, name="rule"),
    path("rules/<int:pk>/versions/", rule_pages.versions, name="rule-versions"),
    path("rules/alerts/<int:pk>/", rule_pages.judgements, name="judgements"),
    path("rules/<int:pk>/delete/", views.rule_delete, name="rule-delete"),
    path("channels/", views.channel_list, name="channels"),
    path("channels/new/<slug:kind>/", views.channel_new, name="channel-new"),
    path("channels/<int:pk>/", views.channel_edit, name="channel"),
    path("channels/<int:pk>/test/", views.channel_test, name="channel-test"),
    path("channels/<int:pk>/delete/", views.channel_delete, name="channel-delete"),
    path("check-ins/", checkin_pages.checkin_list, name="checkins"),
    path("check-ins/new/", checkin_pages.checkin_new, name="checkin-new"),
    path("check-ins/<int:pk>/", checkin_pages.checkin_edit, name="checkin"),
    path("check-ins/<int:pk>/pause/", checkin_pages.checkin_pause, name="checkin-pause"),
    path("check-ins/<int:pk>/delete/", checkin_pages.checkin_delete, name="checkin-delete"),
    path("uptime/", uptime_pages.report, name="uptime"),
    path("uptime.csv", uptime_pages.report_csv, name="uptime-csv"),
    path("maintenance/", suppression_pages.suppressions, name="suppressions"),
    path("maintenance/new/", suppression_pages.suppress, name="suppress"),
    path("maintenance/<int:pk>/", suppression_pages.change_suppression, name="suppression"),
    path("maintenance/<int:pk>/end/", suppression_pages.end_suppression, name="suppression-end"),
    path("maintenance/again/<int:pk>/", suppression_pages.change_recurrence, name="recurrence"),
    path(
        "maintenance/again/<int:pk>/end/",
        suppression_pages.end_recurrence,
        name="recurrence-end",
    ),
    path("deliveries/", delivery_pages.delivery_log, name="deliveries"),
    path("deliveries/<int:pk>/resend/", delivery_pages.resend, name="resend"),
    path("routes/", route_pages.route_list, name="routes"),
    path("routes/new/", route_pages.route_new, name="route-new"),
    path("routes/<int:pk>/", route_pages.route_edit, name="route"),
    path("routes/<int:pk>/delete/", route_pages.route_delete, name="route-delete"),
]
