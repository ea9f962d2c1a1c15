"""What is watched, below an organization's mount point; `sentinel_site.urls` adds the pages that
show servers with their metrics and alerts."""

from django.urls import path

from clouds import views

urlpatterns = [
    path("servers/add/", views.add_server, name="add-server"),
    path("servers/<int:pk>/agent/", views.agent_settings, name="agent-settings"),
]
