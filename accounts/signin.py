"""One-time sign-in links, made on the command line by whoever runs the installation."""

from __future__ import annotations

from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.utils.encoding import force_str
from django.utils.http import urlsafe_base64_decode, urlsafe_base64_encode

from accounts.models import User
from sentinel_site.kit.problems import Problem
from sentinel_site.kit.tenancy import public_url


class LinkUnknown(Problem):
    status, code, title = 404, "link-unknown", "This sign-in link is used up or expired"


class _Tokens(PasswordResetTokenGenerator):
    """Bound to the last sign-in, so that using a link ends it and all made before."""

    key_salt = "accounts.signin"


_tokens = _Tokens()


def make_link(user: User) -> str:
    """An address that signs this person in once, within PASSWORD_RESET_TIMEOUT."""
    uid = urlsafe_base64_encode(str(user.pk).encode())
    return public_url("signin", uid=uid, token=_tokens.make_token(user))


def user_of(uid: str, token: str) -> User:
    """Whose link this is. Raises LinkUnknown."""
    try:
        pk = int(force_str(urlsafe_base64_decode(uid)))
    except ValueError:
        raise LinkUnknown from None
    user = User.objects.filter(pk=pk, is_active=True).first()
    if user is None or not _tokens.check_token(user, token):
        raise LinkUnknown("Sign in with your password, or make a new link.")
    return user
