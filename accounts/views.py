"""Pages of accounts: the way in, one's organizations, members and keys."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import get_adapter
from allauth.account.utils import perform_login
from allauth.account.views import SignupView as AllauthSignupView
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts import keys, queries, signin, signup
from accounts.access import TenantRequest, audit, fetch, permit, require
from accounts.forms import InviteForm, KeyForm, OrganizationForm, RoleForm, ThemeForm
from accounts.models import Invitation, Key, Role, User
from accounts.receivers import provision_owned_by
from sentinel_site.kit.tenancy import tenant_path

INVITATION_SESSION_KEY = "invitation"


@require_GET
def landing(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return redirect("home")
    return render(request, "landing.html")


@login_required
def home(request: HttpRequest) -> HttpResponse:
    """To the only organization, or a choice of them; a new one is founded here."""
    user = _person(request)
    provision_owned_by(user.pk)
    form = OrganizationForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        tenant = signup.found(form.cleaned_data["name"], user)
        provision_owned_by(user.pk)
        return redirect(tenant_path(tenant, "dashboard"))
    memberships = list(queries.memberships_of(user))
    if len(memberships) == 1 and request.method == "GET" and "all" not in request.GET:
        return redirect(tenant_path(memberships[0].tenant, "dashboard"))
    return render(
        request,
        "accounts/organizations.html",
        {
            "form": form,
            "organizations": [
                {"membership": one, "url": tenant_path(one.tenant, "dashboard")}
                for one in memberships
            ],
        },
    )


@login_required
@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Remember how this person likes the pages: as the system is, light or dark."""
    form = ThemeForm(request.POST, instance=_person(request))
    if not form.is_valid():
        return HttpResponse("Use system, light or dark.", status=422)
    form.save()
    return HttpResponse(status=204)


@require_GET
@never_cache
def sign_in(request: HttpRequest, uid: str, token: str) -> HttpResponse:
    """Follow a one-time link that was made on the command line."""
    user = signin.user_of(uid, token)
    if request.user.is_authenticated and request.user != user:
        get_adapter(request).logout(request)
    response: HttpResponse = perform_login(request, user, redirect_url="/home/")
    return response


class SignupView(AllauthSignupView):
    """allauth's, which also knows who was invited; their address needs no second confirmation."""

    def get_form_kwargs(self) -> dict[str, Any]:
        kwargs: dict[str, Any] = super().get_form_kwargs()
        token = self.request.session.get(INVITATION_SESSION_KEY)
        if token:
            kwargs["invitation"] = _open_invitation(self.request, token)
        return kwargs

    def form_valid(self, form: Any) -> HttpResponse:
        if form.invitation is not None:
            get_adapter(self.request).stash_verified_email(self.request, form.invitation.email)
        response: HttpResponse = super().form_valid(form)
        self.request.session.pop(INVITATION_SESSION_KEY, None)
        return response


def _open_invitation(request: HttpRequest, token: str) -> Invitation | None:
    try:
        return signup.invitation_for(token, timezone.now())
    except signup.InvitationUnknown:
        del request.session[INVITATION_SESSION_KEY]
        return None


@require_http_methods(["GET", "POST"])
@never_cache
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """What somebody is invited to; those with an account accept, others sign up first."""
    offer = signup.invitation_for(token, timezone.now())
    if request.method == "POST" and request.user.is_authenticated:
        signup.join(offer, _person(request), timezone.now())
        request.session.pop(INVITATION_SESSION_KEY, None)
        return redirect(tenant_path(offer.tenant, "dashboard"))
    if not request.user.is_authenticated:
        request.session[INVITATION_SESSION_KEY] = token
    known = User.objects.filter(email__iexact=offer.email, is_active=True).exists()
    return render(request, "accounts/invitation.html", {"invitation": offer, "has_account": known})


# -- below /o/<slug>/ ---------------------------------------------------------


@require_GET
@permit(Role.VIEWER)
def members(request: TenantRequest) -> HttpResponse:
    return _members_page(request, InviteForm())


def _members_page(request: TenantRequest, form: InviteForm, status: int = 200) -> HttpResponse:
    context = {
        "members": queries.members(request.tenant),
        "invitations": queries.invitations(request.tenant, timezone.now()),
        "form": form,
        "roles": [role for role in Role if request.access.may(role)],
        "may_manage": request.access.may(Role.ADMIN),
    }
    return render(request, "accounts/members.html", context, status=status)


@require_POST
@permit(Role.ADMIN)
def invite(request: TenantRequest) -> HttpResponse:
    form = InviteForm(request.POST)
    if not form.is_valid():
        return _members_page(request, form, 422)
    offer = signup.invite(
        request.access,
        form.cleaned_data["email"],
        Role(form.cleaned_data["role"]),
        timezone.now(),
    )
    messages.success(request, f"{offer.email} was sent an invitation. It is open for 7 days.")
    return redirect("accounts:members")


@require_POST
def withdraw_invitation(request: TenantRequest, pk: int) -> HttpResponse:
    mine = Invitation.objects.filter(tenant=request.tenant, accepted_at=None)
    offer = fetch(request, mine, Role.ADMIN, pk=pk)
    signup.withdraw(request.access, offer)
    messages.success(request, f"The invitation of {offer.email} was withdrawn.")
    return redirect("accounts:members")


@require_POST
def change_role(request: TenantRequest, pk: int) -> HttpResponse:
    membership = fetch(request, queries.members(request.tenant), Role.ADMIN, pk=pk)
    form = RoleForm(request.POST)
    if form.is_valid():
        signup.change_role(request.access, membership, Role(form.cleaned_data["role"]))
        messages.success(request, f"{membership.user} is now {membership.role}.")
    else:
        messages.error(request, "Choose one of the roles.")
    return redirect("accounts:members")


@require_POST
def remove_member(request: TenantRequest, pk: int) -> HttpResponse:
    """Admins remove others; everybody may leave."""
    membership = fetch(request, queries.members(request.tenant), Role.VIEWER, pk=pk)
    leaves = membership.user == request.user
    if not leaves:
        require(request, Role.ADMIN)
    signup.remove(request.access, membership)
    if leaves:
        return redirect("/home/")
    messages.success(request, f"{membership.user} has no access any more.")
    return redirect("accounts:members")


@require_GET
@permit(Role.VIEWER)
def key_list(request: TenantRequest) -> HttpResponse:
    return _keys_page(request, KeyForm())


def _keys_page(
    request: TenantRequest, form: KeyForm, status: int = 200, **more: Any
) -> HttpResponse:
    context = {
        "keys": queries.keys(request.tenant),
        "form": form,
        "may_manage": request.access.may(Role.ADMIN),
        **more,
    }
    return render(request, "accounts/keys.html", context, status=status)


@require_POST
@never_cache
@permit(Role.ADMIN)
@transaction.atomic
def issue_key(request: TenantRequest) -> HttpResponse:
    """Answers with the secret on the page itself: it is shown this once and kept nowhere."""
    form = KeyForm(request.POST)
    if not form.is_valid():
        return _keys_page(request, form, 422)
    key, secret = keys.issue(
        request.tenant,
        form.cleaned_data["scope"],
        name=form.cleaned_data["name"],
        by=_person(request),
    )
    audit(request.access, "key.issued", key, name=key.name, scope=key.scope)
    return _keys_page(request, KeyForm(), issued=key, secret=secret)


@require_POST
@transaction.atomic
def revoke_key(request: TenantRequest, pk: int) -> HttpResponse:
    key = fetch(request, Key.objects.filter(tenant=request.tenant), Role.ADMIN, pk=pk)
    keys.revoke(key, timezone.now())
    audit(request.access, "key.revoked", key, name=key.name)
    messages.success(request, f"{key} ends within 30 seconds.")
    return redirect("accounts:keys")


@require_GET
@permit(Role.ADMIN)
def audit_log(request: TenantRequest) -> HttpResponse:
    return render(
        request, "accounts/audit.html", {"entries": queries.audit_log(request.tenant)[:200]}
    )


def _person(request: HttpRequest) -> User:
    """The signed-in person; the views that call this let nobody else in."""
    assert isinstance(request.user, User)  # noqa: S101  narrows the type
    return request.user
