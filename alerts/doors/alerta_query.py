"""What `alerta query` asks for, as a filter of alerts: fields, operators, and the query language.

A field takes a value, `~value` (contains) and `!` before either (not). `q` is Lucene's language as
Alerta has it: `severity:critical AND NOT resource:web*`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import reduce
from operator import and_, or_

import psycopg2.errors
from django.db import OperationalError, transaction
from django.db.models import Q, QuerySet
from django.http import QueryDict
from luqum import tree
from luqum.exceptions import ParseError
from luqum.thread import parse

from alerts.doors import alerta
from alerts.models import Alert
from sentinel_site.kit.problems import Problem
from sentinel_site.kit.tenancy import connection

#: Fields that answer is shaped or paged by; they filter nothing.
_SHAPE = frozenset(
    {"page", "page-size", "sort-by", "reverse", "show-raw-data", "show-history", "api-key", "q"}
)
_LONGEST_QUERY = 1000
_MOST_TERMS = 50
_WITHIN = "10s"
_DEEPEST = 30


class NotAQuery(Problem):
    status, code, title = 400, "not-a-query", "This cannot be searched for"


class TookTooLong(Problem):
    status, code, title = 422, "query-too-slow", "The query took too long"


@contextmanager
def in_time() -> Iterator[None]:
    """Queries in it have ten seconds each. Raises TookTooLong."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, TRUE)", [_WITHIN])
            yield
            cursor.execute("SELECT set_config('statement_timeout', '0', TRUE)")
    except OperationalError as error:
        if isinstance(error.__cause__, psycopg2.errors.QueryCanceled):
            raise TookTooLong("Ask by fewer or by exact terms, or of a shorter time.") from error
        raise


def matching(params: QueryDict) -> QuerySet[Alert]:
    """Alerts that match all fields, newest first. Raises NotAQuery, which says what is known."""
    terms = sum(len(params.getlist(name)) for name in params if name not in _SHAPE)
    _check_terms(terms)
    found = [_field(name, params.getlist(name)) for name in params if name not in _SHAPE]
    found += [_parsed(text) for text in params.getlist("q") if text]
    rows = Alert.objects.select_related("incident", "server__group", "received")
    return rows.filter(reduce(and_, found, Q())).order_by("-pk")


def _field(name: str, values: Iterable[str]) -> Q:
    if name == "from-date":
        return Q(breached_at__gt=_time(name, *values))
    if name == "to-date":
        return Q(breached_at__lte=_time(name, *values))
    wanted: list[Q] = []
    unwanted: list[Q] = []
    for value in values:
        text = value.replace("\0", "�")
        negative = text.startswith("!")
        text = text.removeprefix("!")
        one = _term(name, text.removeprefix("~"), contains=text.startswith("~"))
        (unwanted if negative else wanted).append(one)
    positive = reduce(or_, wanted) if wanted else Q()
    return reduce(and_, (~one for one in unwanted), positive)


def _time(name: str, *values: str) -> datetime:
    try:
        return alerta.read_stamp(values[-1])
    except ValueError as error:
        raise NotAQuery(f"{name} must be as in 2026-11-23T04:05:06.789Z") from error


def _term(name: str, value: str, contains: bool = False) -> Q:
    make = _FIELDS.get(name)
    if make is None:
        raise NotAQuery(f"There is no field {name[:60]}. Use one of {', '.join(sorted(_FIELDS))}.")
    return make(value, "icontains" if contains else "")


def _said(name: str, otherwise: str) -> Callable[[str, str], Q]:
    """A field of the sender's own words, or of the alert where it is one of ours."""

    def make(value: str, how: str) -> Q:
        theirs, ours = f"received__said__{name}", otherwise
        if how:
            theirs, ours = f"{theirs}__{how}", f"{ours}__{how}"
        told = Q(origin=alerta.ORIGIN)
        return (told & Q(**{theirs: value})) | (~told & Q(**{ours: value}))

    return make


def _listed(name: str, otherwise: str = "") -> Callable[[str, str], Q]:
    """One of a list of the sender's own words."""

    def make(value: str, how: str) -> Q:
        key = f"received__said__{name}__" + (how or "contains")
        theirs = Q(origin=alerta.ORIGIN) & Q(**{key: value if how else [value]})
        if not otherwise:
            return theirs
        ours = otherwise + (f"__{how}" if how else "")
        return theirs | (~Q(origin=alerta.ORIGIN) & Q(**{ours: value}))

    return make


def _id(value: str, how: str) -> Q:
    return Q(pk=alerta.number_of(value) or 0)


def _status(value: str, how: str) -> Q:
    closed, blackout = Q(resolved_at__isnull=False), ~Q(suppressed="")
    shelved = Q(incident__shelved_until__isnull=False)
    taken = Q(incident__acknowledged_at__isnull=False)
    known = {
        "closed": closed,
        "shelved": ~closed & shelved,
        "blackout": ~closed & ~shelved & blackout,
        "ack": ~closed & ~shelved & ~blackout & taken,
        "open": ~closed & ~shelved & ~blackout & ~taken,
    }
    return known.get(value, Q(pk=0))


def _severity(value: str, how: str) -> Q:
    if value not in alerta.SEVERITIES:
        return Q(pk=0)
    ours = alerta.SEVERITIES[value]
    closed = Q(resolved_at__isnull=False)
    if ours is None:
        return closed if value == "normal" else Q(pk=0)
    told = Q(origin=alerta.ORIGIN)
    mine = Q(severity=ours) if alerta.OURS[ours] == value else Q(pk=0)
    return ~closed & ((told & Q(received__said__severity=value)) | (~told & mine))


def _resource(value: str, how: str) -> Q:
    end = f"__{how}" if how else ""
    return (
        Q(**{f"received__said__resource{end}": value})
        | Q(**{f"server__host{end}": value})
        | Q(**{f"resource{end}": value})
    )


_FIELDS: dict[str, Callable[[str, str], Q]] = {
    "id": _id,
    "status": _status,
    "severity": _severity,
    "resource": _resource,
    "event": _said("event", "title"),
    "environment": _said("environment", "server__group__name"),
    "group": _said("group", "subject"),
    "service": _listed("service", "service"),
    "tag": _listed("tags"),
    "tags": _listed("tags"),
    "text": lambda value, how: (
        Q(received__text__icontains=value) | Q(incident__title__icontains=value)
    ),
    "origin": _said("origin", "origin"),
    "value": _said("value", "unit"),
    "type": _said("type", "origin"),
    "customer": _said("customer", "origin"),
}


# -- the query language -------------------------------------------------------


def _parsed(text: str) -> Q:
    if len(text) > _LONGEST_QUERY:
        raise NotAQuery(f"A query has at most {_LONGEST_QUERY} characters.")
    try:
        root = parse(text.replace("\0", "�"))
    except ParseError as error:
        raise NotAQuery(f"Failed to parse query string: {error}") from error
    found = _node(root, "", 0)
    _check_terms(_leaves(root))
    return found


def _leaves(node: tree.Item) -> int:
    return sum(map(_leaves, node.children)) if node.children else 1


def _check_terms(count: int) -> None:
    if count > _MOST_TERMS:
        raise NotAQuery(f"A query has at most {_MOST_TERMS} terms.")


def _node(node: tree.Item, field: str, depth: int) -> Q:
    """A part of a query; words without a field are looked for in the text."""
    if depth > _DEEPEST:
        raise NotAQuery("The query is nested too deeply.")
    inside = [_node(child, field, depth + 1) for child in _children(node)]
    if isinstance(node, tree.SearchField):
        return _node(node.expr, node.name, depth + 1)
    if isinstance(node, tree.OrOperation):
        return reduce(or_, inside)
    if isinstance(node, tree.AndOperation | tree.UnknownOperation):
        return reduce(and_, inside)
    if isinstance(node, tree.Not | tree.Prohibit):
        return ~inside[0]
    if isinstance(node, tree.Group | tree.FieldGroup | tree.Plus):
        return inside[0]
    if isinstance(node, tree.Phrase):
        return _term(field or "text", node.value[1:-1])
    if isinstance(node, tree.Word):
        star = "*" in node.value
        return _term(field or "text", node.value.replace("*", ""), contains=star)
    raise NotAQuery(f"“{node}” is not supported; use words, “phrases”, AND, OR, NOT and brackets.")


def _children(node: tree.Item) -> list[tree.Item]:
    return [] if isinstance(node, tree.SearchField) else list(node.children)
