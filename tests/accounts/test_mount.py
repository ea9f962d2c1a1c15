"""The tenant as a mount point: what each trap of it would break."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.template import Context, Template
from django.templatetags.static import static
from django.test import Client, RequestFactory
from django.urls import get_script_prefix, reverse, set_script_prefix

from accounts import keys
from accounts.middleware import TenantMiddleware
from accounts.models import Key, Tenant
from sentinel_site.kit.tenancy import public_path, public_url, tenant_link

pytestmark = pytest.mark.django_db


def seen_inside(alice, client, check):
    """Run `check(request)` as the view below /o/acme/ and return what it returned."""
    found = {}

    def view(request):
        from django.http import HttpResponse

        found["result"] = check(request)
        return HttpResponse()

    request = RequestFactory().get("/o/acme/")
    request.user = alice
    TenantMiddleware(view)(request)
    return found["result"]


def test_reverse_below_a_mount_needs_no_tenant(alice, client):
    path = seen_inside(alice, client, lambda request: reverse("accounts:members"))
    assert path == "/o/acme/settings/members/"


def test_static_urls_below_a_mount_begin_at_the_root(alice, client):
    assert seen_inside(alice, client, lambda request: static("css/app.css")).startswith("/static/")


def test_public_pages_are_linked_from_below_a_mount(alice, client):
    assert seen_inside(alice, client, lambda r: public_path("account_login")) == "/login/"
    assert seen_inside(alice, client, lambda r: public_path("admin:index")) == "/staff/"
    assert seen_inside(alice, client, lambda r: public_url("landing")).endswith(":8000/")


def test_a_task_links_to_a_tenant_without_a_request(settings):
    settings.PUBLIC_URL = "https://watch.example"
    tenant = Tenant.objects.get(slug="acme")
    assert (
        tenant_link(tenant, "accounts:members") == "https://watch.example/o/acme/settings/members/"
    )


def test_a_link_to_another_tenant_is_right_below_a_mount(alice, client):
    globex = Tenant.objects.get(slug="globex")
    link = seen_inside(alice, client, lambda r: tenant_link(globex, "accounts:members"))
    assert link.endswith("/o/globex/settings/members/")


def test_a_prefix_left_on_the_thread_does_not_reach_the_next_request(client):
    set_script_prefix("/o/globex/")
    try:
        assert 'href="/o/' not in client.get("/login/").content.decode()
    finally:
        set_script_prefix("/")


def test_all_is_reset_after_a_view_that_raised(alice):
    def broken(request):
        raise ValueError("broken")

    request = RequestFactory().get("/o/acme/")
    request.user = alice
    with pytest.raises(ValueError, match="broken"):
        TenantMiddleware(broken)(request)
    assert get_script_prefix() == "/"
    assert connection.schema_name == "public"


def test_public_requests_are_served_from_the_public_schema(client):
    connection.set_schema("t_of_somebody_else")
    client.get("/login/")
    assert connection.schema_name == "public"


def test_templates_below_a_mount_link_within_it(alice, client):
    template = Template("{% url 'accounts:keys' %}")
    assert seen_inside(alice, client, lambda r: template.render(Context())) == (
        "/o/acme/settings/keys/"
    )


def test_anonymous_visitors_are_sent_to_the_login_whether_or_not_it_exists(client):
    for slug in ("acme", "nobody-has-this"):
        answer = client.get(f"/o/{slug}/settings/members/?a=1")
        assert answer.status_code == 302
        assert answer["Location"] == f"/login/?next=/o/{slug}/settings/members/%3Fa%3D1"


def test_an_outsider_sees_the_same_404_as_for_what_does_not_exist(client, mallory):
    client.force_login(mallory)
    bodies = {
        re.sub(rb'data-now="\d+"', b"", client.get(f"/o/{slug}/{page}").content)
        for slug in ("acme", "nobody-has-this")
        for page in ("", "settings/members/", "servers/1/", "no/such/page/")
    }
    assert len(bodies) == 1
    assert client.get("/o/acme/").status_code == 404


def test_a_name_with_a_nul_in_it_is_no_organization(client, alice):
    client.force_login(alice)
    assert client.get("/o/acme%00/").status_code == 404


def test_a_tenant_without_its_schema_is_not_served(client, alice):
    Tenant.objects.filter(slug="acme").update(provisioned_at=None)
    client.force_login(alice)
    assert client.get("/o/acme/").status_code == 404


def test_the_api_wants_a_key(client):
    answer = client.get("/o/acme/api/v1/keys/")
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/not-authenticated"


def test_a_key_opens_its_own_organization_only(acme, client):
    _, text = keys.issue(acme, Key.Scope.READ)
    header = {"Authorization": f"Bearer {text}"}
    assert client.get("/o/acme/api/v1/members/", headers=header).status_code == 200
    for slug in ("globex", "nobody-has-this"):
        assert client.get(f"/o/{slug}/api/v1/members/", headers=header).status_code == 404


def test_a_key_opens_no_page(acme, client):
    _, text = keys.issue(acme, Key.Scope.ADMIN)
    answer = client.get("/o/acme/settings/keys/", headers={"Authorization": f"Bearer {text}"})
    assert answer.status_code == 302


def test_an_ingest_key_does_not_read(acme, client):
    _, text = keys.issue(acme, Key.Scope.INGEST)
    answer = client.get("/o/acme/api/v1/members/", headers={"Authorization": f"Bearer {text}"})
    assert answer.status_code == 403
    assert answer.json()["type"] == "/problems/wrong-scope"


def test_a_session_writes_to_the_api_only_with_a_csrf_token(alice):
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    answer = client.post("/o/acme/api/v1/keys/", {"scope": "read"}, content_type="application/json")
    assert answer.status_code == 403
