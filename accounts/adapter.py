"""Where allauth meets our rules."""

from __future__ import annotations

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.http import HttpRequest

from sentinel_site.kit.tenancy import public_url


class AccountAdapter(DefaultAccountAdapter):
    """Mails link to PUBLIC_URL, whatever host name the request came by."""

    def get_email_confirmation_url(self, request: HttpRequest, emailconfirmation: object) -> str:
        return public_url("account_confirm_email", emailconfirmation.key)  # type: ignore[attr-defined]

    def get_reset_password_from_key_url(self, key: str) -> str:
        return str(
            super()
            .get_reset_password_from_key_url(key)
            .replace(self.request.build_absolute_uri("/").rstrip("/"), settings.PUBLIC_URL)
        )
