"""Forms of accounts."""

from __future__ import annotations

from typing import Any

from allauth.account.forms import SignupForm as AllauthSignupForm
from django import forms
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from accounts import signup
from accounts.models import Invitation, Key, Role, User


class OrganizationForm(forms.Form):
    """The name of a new organization."""

    name = forms.CharField(
        label="Organization",
        max_length=120,
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
    )


class SignupForm(AllauthSignupForm):
    """E-mail, password and the organization's name.

    The invited join an organization instead, under the address that the invitation was sent to.
    """

    organization = forms.CharField(
        label="Organization",
        max_length=120,
        widget=forms.TextInput(attrs={"autocomplete": "organization", "autofocus": True}),
    )
    field_order = ["organization", "email", "password1"]

    def __init__(self, *args: Any, invitation: Invitation | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["email"].label = "E-mail"
        self.invitation = invitation
        if invitation is not None:
            del self.fields["organization"]
            self.fields["email"].initial = invitation.email
            self.fields["email"].disabled = True

    @transaction.atomic
    def save(self, request: HttpRequest) -> User:
        user: User = super().save(request)
        if self.invitation is not None:
            signup.join(self.invitation, user, timezone.now())
        else:
            signup.found(self.cleaned_data["organization"], user)
        return user


class InviteForm(forms.Form):
    """Whom to invite, and as what."""

    email = forms.EmailField(label="E-mail")
    role = forms.ChoiceField(choices=Role.choices, initial=Role.MEMBER)


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=Role.choices)


class ThemeForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = User
        fields = ["theme"]


class KeyForm(forms.Form):
    """What a new key is for. Enrol tokens are made by “Add a server”."""

    name = forms.CharField(max_length=120, label="What it is for")
    scope = forms.ChoiceField(
        choices=[choice for choice in Key.Scope.choices if choice[0] != Key.Scope.ENROL],
        initial=Key.Scope.INGEST,
    )
