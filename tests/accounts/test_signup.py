"""How organizations and people come and go."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.core import mail

from accounts import signup
from accounts.access import Access
from accounts.models import AuditEntry, Invitation, Membership, Role, Tenant, User
from sentinel_site.kit.problems import NotPermitted

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PASSWORD = "a long walk along the shore"


def link_in(message):
    return re.search(r"https?://[^/\s]+(/\S+)", message.body)[1]


def sign_up(client, **fields):
    data = {"organization": "Initech", "email": "bill@initech.example", "password1": PASSWORD}
    return client.post("/signup/", {**data, **fields})


def test_signing_up_leads_by_a_confirmed_address_to_a_usable_organization(client):
    assert sign_up(client).status_code == 302
    assert Tenant.objects.get(slug="initech").provisioned_at is None
    confirm = link_in(mail.outbox[0])
    assert client.get(confirm).status_code == 200
    client.post(confirm)
    assert Tenant.objects.get(slug="initech").provisioned_at is not None
    page = client.get("/home/", follow=True)
    assert page.status_code == 200
    assert page.request["PATH_INFO"].startswith("/o/initech/") or page.redirect_chain[-1][
        0
    ].startswith("/o/initech/")


def test_a_new_organization_watches_and_tells_its_owner(client):
    from alerts.models import NotificationChannel, Rule
    from sentinel_site.kit.tenancy import in_schema

    sign_up(client)
    client.post(link_in(mail.outbox[0]))
    with in_schema(Tenant.objects.get(slug="initech").schema_name):
        assert Rule.objects.filter(name="Server silent", enabled=True).exists()
        assert NotificationChannel.objects.get().config == {"to": "bill@initech.example"}


def test_two_organizations_of_one_name_get_two_addresses(client):
    sign_up(client)
    client.logout()
    sign_up(client, email="michael@initech.example")
    assert set(Tenant.objects.filter(name="Initech").values_list("slug", flat=True)) == {
        "initech",
        "initech-2",
    }


@pytest.mark.parametrize(
    ("name", "slug"), [("Admin", "admin-2"), ("Ärzte & Söhne", "arzte-sohne"), ("工業", "cloud")]
)
def test_an_address_is_made_of_any_name_and_never_a_reserved_one(alice, name, slug):
    assert signup.found(name, alice).slug == slug


def test_a_name_has_one_line(alice):
    assert signup.found("Acme\r\nBcc: mallory@example.org", alice).name == (
        "Acme Bcc: mallory@example.org"
    )


def test_a_known_address_is_not_told_apart_at_signup(client, alice):
    answer = sign_up(client, email=alice.email)
    assert answer.status_code == 302
    assert User.objects.filter(email=alice.email).count() == 1
    assert not Tenant.objects.filter(slug="initech").exists()


def test_login_logout_and_password_reset(client, alice):
    assert client.post("/login/", {"login": alice.email, "password": PASSWORD}).status_code == 302
    assert client.get("/home/").status_code == 302
    client.post("/logout/")
    assert client.get("/home/")["Location"].startswith("/login/")
    client.post("/password/reset/", {"email": alice.email})
    reset = client.get(link_in(mail.outbox[-1]), follow=True)
    path = reset.redirect_chain[-1][0]
    client.post(
        path, {"password1": "another walk, by the sea", "password2": "another walk, by the sea"}
    )
    assert client.login(email=alice.email, password="another walk, by the sea")


def test_a_sign_in_link_works_once(client, alice):
    from accounts.signin import make_link

    path = "/" + make_link(alice).split("/", 3)[3]
    assert client.get(path)["Location"] == "/home/"
    client.logout()
    assert client.get(path).status_code == 404


# -- invitations --------------------------------------------------------------


def invite(acme, alice, email="dana@acme.example", role=Role.MEMBER, callbacks=None):
    with callbacks(execute=True):
        signup.invite(Access(acme, Role.OWNER, alice), email, role, datetime.now(UTC))
    return link_in(mail.outbox[-1])


def test_the_invited_sign_up_without_confirming_their_address_again(
    acme, alice, client, django_capture_on_commit_callbacks
):
    path = invite(acme, alice, callbacks=django_capture_on_commit_callbacks)
    assert "Acme" in client.get(path).content.decode()
    answer = client.post("/signup/", {"password1": PASSWORD, "email": "other@evil.example"})
    assert answer.status_code == 302
    member = Membership.objects.get(user__email="dana@acme.example")
    assert (member.tenant, member.role) == (acme, Role.MEMBER)
    assert client.get("/o/acme/settings/members/").status_code == 200
    assert not User.objects.filter(email="other@evil.example").exists()


def test_a_person_with_an_account_accepts(
    acme, alice, mallory, client, django_capture_on_commit_callbacks
):
    path = invite(acme, alice, mallory.email, callbacks=django_capture_on_commit_callbacks)
    client.force_login(mallory)
    assert client.post(path).status_code == 302
    assert Membership.objects.filter(user=mallory, tenant=acme).exists()
    assert client.post(path).status_code == 404, "an invitation works once"


def test_an_invitation_is_for_its_address_only(
    acme, alice, mallory, client, django_capture_on_commit_callbacks
):
    path = invite(acme, alice, callbacks=django_capture_on_commit_callbacks)
    client.force_login(mallory)
    client.post(path)
    assert not Membership.objects.filter(user=mallory, tenant=acme).exists()


def test_an_invitation_ends_after_seven_days(acme, alice, django_capture_on_commit_callbacks):
    path = invite(acme, alice, callbacks=django_capture_on_commit_callbacks)
    token = path.split("/")[2]
    soon = datetime.now(UTC) + signup.INVITATION_LIFETIME - timedelta(minutes=1)
    assert signup.invitation_for(token, soon)
    with pytest.raises(signup.InvitationUnknown):
        signup.invitation_for(token, soon + timedelta(minutes=2))


def test_a_second_invitation_replaces_the_first(acme, alice, django_capture_on_commit_callbacks):
    invite(acme, alice, callbacks=django_capture_on_commit_callbacks)
    invite(acme, alice, email="Dana@Acme.example", callbacks=django_capture_on_commit_callbacks)
    assert Invitation.objects.count() == 1


def test_nobody_gives_away_a_role_above_their_own(acme, bob):
    with pytest.raises(NotPermitted):
        signup.invite(Access(acme, Role.ADMIN, bob), "x@acme.example", Role.OWNER, NOON)


# -- members ------------------------------------------------------------------


def test_an_organization_keeps_an_owner(acme, alice):
    access = Access(acme, Role.OWNER, alice)
    own = Membership.objects.get(user=alice, tenant=acme)
    with pytest.raises(signup.LastOwner):
        signup.change_role(access, own, Role.ADMIN)
    with pytest.raises(signup.LastOwner):
        signup.remove(access, own)
    with pytest.raises(signup.LastOwner):
        signup.retire_user(alice, NOON)


def test_an_admin_does_not_touch_an_owner(acme, alice, bob, client):
    Membership.objects.filter(user=bob, tenant=acme).update(role=Role.ADMIN)
    own = Membership.objects.get(user=alice, tenant=acme)
    client.force_login(bob)
    client.post(f"/o/acme/settings/members/{own.pk}/role/", {"role": "viewer"})
    client.post(f"/o/acme/settings/members/{own.pk}/remove/")
    own.refresh_from_db()
    assert own.role == Role.OWNER


def test_a_member_may_leave_but_not_remove(acme, alice, bob, client):
    client.force_login(bob)
    other = Membership.objects.get(user=alice, tenant=acme)
    assert client.post(f"/o/acme/settings/members/{other.pk}/remove/").status_code == 403
    own = Membership.objects.get(user=bob, tenant=acme)
    assert client.post(f"/o/acme/settings/members/{own.pk}/remove/").status_code == 302
    assert client.get("/o/acme/").status_code == 404


def test_a_retired_user_is_kept_and_gets_in_nowhere(acme, bob, client):
    client.force_login(bob)
    signup.retire_user(bob, NOON)
    assert User.objects.filter(pk=bob.pk, retired_at=NOON).exists()
    assert client.get("/o/acme/").status_code in (302, 404)
    assert not client.login(email=bob.email, password=PASSWORD)


def test_changes_are_in_the_audit_log(acme, alice, bob, client):
    client.force_login(alice)
    member = Membership.objects.get(user=bob, tenant=acme)
    client.post(f"/o/acme/settings/members/{member.pk}/role/", {"role": "admin"})
    entry = AuditEntry.objects.latest("pk")
    assert (entry.verb, entry.user, entry.subject) == ("member.role", alice, bob.email)


def test_one_person_switches_between_organizations(alice, client):
    other = signup.found("Other", alice)
    from accounts.provisioning import provision

    provision(other)
    client.force_login(alice)
    page = client.get("/home/")
    assert page.status_code == 200
    assert b"/o/acme/" in page.content
    assert b"/o/other/" in page.content
