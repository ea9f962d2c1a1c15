"""Where an installation looks often, new data is judged as it comes and waits for no tick.

A courtesy that may be lost, at most four times a tick and tenant: the tick after it finds the same.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import structlog
from celery import current_app
from django.conf import settings
from django.utils import timezone
from kombu.exceptions import OperationalError

log = structlog.get_logger(__name__)

#: Whoever looks less often than this has no haste: an evaluation costs what it costs.
QUICK = timedelta(seconds=2)
_EXPIRES = 5


def wake(schema: str) -> None:
    """Data of this tenant was stored: have it judged soon, if that is wanted here."""
    if settings.TICK <= QUICK:
        _asker.put(schema, settings.TICK.total_seconds() / 4)


class _Asker:
    """Tenants whose data waits, and the thread that asks for their evaluation."""

    def __init__(self) -> None:
        self._waiting: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, schema: str, pause: float) -> None:
        with self._changed:
            self._waiting.setdefault(schema, self._asked.get(schema, 0.0) + pause)
            if self._thread is None or not self._thread.is_alive():  # also after a fork
                self._thread = threading.Thread(target=self._run, name="early", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            schemas = self._take()
            try:
                for schema in schemas:
                    current_app.send_task(
                        "alerts.tasks.evaluate",
                        ([schema], timezone.now().isoformat()),
                        expires=_EXPIRES,
                        retry=False,
                    )
            except OperationalError as error:
                log.warning("broker away; the next tick looks", error=str(error))

    def _take(self) -> list[str]:
        """Wait until somebody's data may be looked at, and take those."""
        with self._changed:
            while True:
                now = time.monotonic()
                due = [schema for schema, at in self._waiting.items() if at <= now]
                if due:
                    self._asked = {k: t for k, t in self._asked.items() if t + 60 > now}
                    self._asked.update(dict.fromkeys(due, now))
                    for schema in due:
                        del self._waiting[schema]
                    return due
                soonest = min(self._waiting.values(), default=None)
                self._changed.wait(None if soonest is None else soonest - now)


_asker = _Asker()
