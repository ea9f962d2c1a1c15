from django.urls import path

from metrics.api.views import EventsView, KnocksView, SeriesView

urlpatterns = [
    path("servers/<int:pk>/series/", SeriesView.as_view(), name="api-server-series"),
    path("events/", EventsView.as_view(), name="api-events"),
    path("unknown-plugins/", KnocksView.as_view(), name="api-knocks"),
]
