"""Forms of accounts."""

from __future__ import annotations

from typing import Any

from allauth.account.forms import SignupForm as AllauthSignupForm
from django import forms
from django.db import transaction
from django.http import HttpRequest

from accounts import signup
from accounts.models import Key, Role, User

INVITATION_SESSION_KEY = "invitation"


class SignupForm(AllauthSignupForm):
    """E-mail, password and the organization's name; the last is not asked of the invited."""

    organization = forms.CharField(
        label="Organization",
        max_length=120,
        widget=forms.TextInput(attrs={"autocomplete": "organization", "autofocus": True}),
    )
    field_order = ["organization", "email", "password1"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        invited = kwargs.pop("invited_to", None)
        super().__init__(*args, **kwargs)
        if invited:
            del self.fields["organization"]

    @transaction.atomic
    def save(self, request: HttpRequest) -> User:
        user: User = super().save(request)
        if "organization" in self.cleaned_data:
            signup.found(self.cleaned_data["organization"], user)
        return user


class InviteForm(forms.Form):
    email = forms.EmailField(label="E-mail")
    role = forms.ChoiceField(choices=Role.choices, initial=Role.MEMBER)


class KeyForm(forms.Form):
    name = forms.CharField(max_length=120, label="What it is for")
    scope = forms.ChoiceField(
        choices=[choice for choice in Key.Scope.choices if choice[0] != Key.Scope.ENROL],
        initial=Key.Scope.INGEST,
    )
