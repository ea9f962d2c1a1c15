"""What is watched, below an organization's mount point."""

from django.urls import path

from clouds import views

app_name = "clouds"
urlpatterns = [
    path("servers/", views.server_list, name="servers"),
    path("servers/add/", views.add_server, name="add-server"),
    path("servers/add/<int:pk>/", views.add_server_waiting, name="add-server-waiting"),
    path("servers/<int:pk>/", views.server, name="server"),
    path("servers/<int:pk>/header/", views.header, name="header"),
    path("servers/<int:pk>/services-now/", views.services, name="services"),
    path("servers/<int:pk>/<slug:tab>/", views.server, name="server-tab"),
]
