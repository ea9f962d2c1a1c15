"""Care of accounts, on a schedule."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.core.management import call_command
from django.utils import timezone

from accounts.models import Invitation, Key

KEPT = timedelta(days=30)


@shared_task
def tidy() -> None:
    """Remove what has run out: sessions, and long after their end invitations and enrol tokens."""
    call_command("clearsessions")
    past = timezone.now() - KEPT
    Invitation.objects.filter(expires_at__lt=past).delete()
    Key.objects.filter(scope=Key.Scope.ENROL, expires_at__lt=past).delete()
