"""Structured logs: JSON or, on a terminal, readable; request id and tenant on each line."""

from __future__ import annotations

import logging
import logging.config
import re
import time
import uuid
from collections.abc import Callable
from typing import Any, Literal

import structlog
from django.http import HttpRequest, HttpResponse

log = structlog.get_logger("request")

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


#: Addresses that are secrets themselves: whoever reads a log must not be able to call them.
_SECRETS = re.compile(
    r"^/(ping/[0-9]+-|signin/[^/]+/|invitations/|confirm-email/|password/reset/key/|unsubscribe/)"
    r"[^/]+"
)


def without_secrets(path: str) -> str:
    """The path of a request as it may be written down."""
    return _SECRETS.sub(r"/\1…", path)


class WithoutSecrets(logging.Filter):
    """Lines of others about a request, Django's own of what it refuses, name its path too."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                without_secrets(one) if isinstance(one, str) else one for one in record.args
            )
        return True


def configure(fmt: Literal["json", "console"], level: str) -> None:
    """Send everything, Django's and Celery's lines too, through one formatter."""
    renderer = (
        structlog.processors.JSONRenderer()
        if fmt == "json"
        else structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        )
    )
    last = [structlog.processors.format_exc_info] if fmt == "json" else []
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "all": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": _SHARED,
                    "processors": [
                        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                        *last,
                        renderer,
                    ],
                }
            },
            "filters": {"secrets": {"()": WithoutSecrets}},
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "formatter": "all",
                    "filters": ["secrets"],
                }
            },
            "root": {"handlers": ["stderr"], "level": level},
            "loggers": {
                "django.server": {"level": "WARNING"},
                "uvicorn.access": {"level": "WARNING"},
                "celery.app.trace": {"level": "WARNING"},
            },
        }
    )


class RequestLogMiddleware:
    """Give each request an id, answer with it, and write one line about it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = uuid.uuid4().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        began = time.monotonic()
        response = self.get_response(request)
        response["X-Request-ID"] = request_id
        milliseconds = round((time.monotonic() - began) * 1000, 1)
        tenant = getattr(request, "tenant", None)
        write = log.error if response.status_code >= 500 else log.info
        write(
            "request",
            method=request.method,
            path=without_secrets(request.path),
            status=response.status_code,
            milliseconds=milliseconds,
            **({"tenant": tenant.slug} if tenant else {}),
        )
        structlog.contextvars.clear_contextvars()
        return response
