from django.urls import path
from metrics import views
app_name = "metrics"
urlpatterns = [path("charts/", views.chart, name="chart"), path("charts/events/", views.chart, name="events-per-hour"), path("logs/", views.chart, name="logs")]
