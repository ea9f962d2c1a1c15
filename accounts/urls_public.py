"""The way in."""

from django.urls import include, path

from accounts import views

urlpatterns = [
    path("", views.landing, name="landing"),
    path("home/", views.home, name="home"),
    path("theme/", views.theme, name="theme"),
    path("signin/<str:uid>/<str:token>/", views.sign_in, name="signin"),
    path("invitations/<str:token>/", views.invitation, name="invitation"),
    path("signup/", views.SignupView.as_view(), name="account_signup"),
    path("", include("allauth.urls")),
]
