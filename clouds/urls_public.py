"""Where a server gets its agent from, and what it says of itself with its own key."""

from django.urls import path

from clouds import views
from clouds.api.leases import LeaseView
from clouds.api.own import OwnStateView, OwnSuppressionEndView, OwnSuppressionView

urlpatterns = [
    path("api/v1/servers/self", OwnStateView.as_view(), name="api-own-server"),
    path("api/v1/lease", LeaseView.as_view(), name="api-lease"),
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
    path("install/offers.json", views.install_offers, name="install-offers"),
    path("install/<str:name>", views.install_file, name="install-file"),
]
