"""Where a server gets its agent from, and what it says of itself with its own key."""

from django.urls import path

from clouds import views
from clouds.api.own import OwnSuppressionEndView, OwnSuppressionView

urlpatterns = [
    path(
        "api/v1/servers/self/suppression",
        OwnSuppressionView.as_view(),
        name="api-own-suppression",
    ),
    path(
        "api/v1/servers/self/suppression/end",
        OwnSuppressionEndView.as_view(),
        name="api-own-suppression-end",
    ),
    path("install", views.install_script, name="install"),
    path("install/<str:name>", views.install_wheel, name="install-wheel"),
]
