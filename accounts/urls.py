"""Settings of an organization, below its mount point."""

from django.urls import path

from accounts import views

app_name = "accounts"
urlpatterns = [
    path("settings/members/", views.members, name="members"),
    path("settings/members/invite/", views.invite, name="invite"),
    path("settings/members/<int:pk>/role/", views.change_role, name="change-role"),
    path("settings/members/<int:pk>/remove/", views.remove_member, name="remove-member"),
    path(
        "settings/invitations/<int:pk>/withdraw/",
        views.withdraw_invitation,
        name="withdraw-invitation",
    ),
    path("settings/keys/", views.key_list, name="keys"),
    path("settings/keys/issue/", views.issue_key, name="issue-key"),
    path("settings/keys/<int:pk>/revoke/", views.revoke_key, name="revoke-key"),
    path("settings/audit/", views.audit_log, name="audit"),
]
