"""Where a server gets its agent from."""

from django.urls import path

from clouds import views

urlpatterns = [
    path("install", views.install_script, name="install"),
    path("install/<str:name>", views.install_wheel, name="install-wheel"),
]
