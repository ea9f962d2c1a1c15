"""Mail to whoever runs the installation: of what is wrong with Sentinella itself."""

from __future__ import annotations

import structlog
from anymail.exceptions import AnymailError
from django.conf import settings
from django.core.mail import send_mail

log = structlog.get_logger(__name__)


def tell(subject: str, text: str) -> bool:
    """Send it to OPERATOR_EMAIL; False where that failed and is worth another try."""
    log.warning("told operators", subject=subject)
    if not settings.OPERATOR_EMAIL:
        return True
    try:
        send_mail(subject, text, None, settings.OPERATOR_EMAIL)
    except (OSError, AnymailError) as error:
        log.error("operators not told", subject=subject, error=str(error))
        return False
    return True
