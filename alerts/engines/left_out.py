"""What cannot be judged of one rule is left out, and stops the judging of no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from django.db import DatabaseError, InterfaceError

from alerts.models import Rule
from metrics.stores.base import StoreUnavailable

log = structlog.get_logger(__name__)

#: Of these no rule is the cause: the whole evaluation is tried again.
NOT_OF_A_RULE = (DatabaseError, InterfaceError, StoreUnavailable, MemoryError)


@dataclass
class LeftOut:
    """The rules, by id, that could not be judged in an evaluation."""

    rules: dict[int, Rule] = field(default_factory=dict)

    @contextmanager
    def around(self, rule: Rule) -> Iterator[None]:
        """Leave the rule out if what is done in it fails; the log has the first reason."""
        try:
            yield
        except NOT_OF_A_RULE:
            raise
        except Exception as error:
            if rule.pk not in self.rules:
                log.error("a rule cannot be judged", rule=rule.name, id=rule.pk, exc_info=error)
            self.rules[rule.pk] = rule
