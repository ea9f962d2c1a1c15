from django.urls import path

from metrics import views

app_name = "metrics"
urlpatterns = [
    path("charts/", views.chart, name="chart"),
    path("charts/events/", views.events_per_hour, name="events-per-hour"),
    path("knocks/", views.unknown_keys, name="knocks"),
    path("logs/", views.logs, name="logs"),
]
