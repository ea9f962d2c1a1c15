"""What is known of a log line, for templates of every app."""

from __future__ import annotations

from django import template

from alerts import knowledge
from alerts.knowledge import Entry

register = template.Library()


@register.simple_tag
def explained(service: str, message: str) -> Entry | None:
    """The known failure that a log event is, or None."""
    return knowledge.explain(service, message)
