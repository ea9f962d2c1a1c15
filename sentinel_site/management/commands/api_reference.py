from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.urls import get_resolver

from sentinel_site.kit.problems import Problem
from sentinel_site.openapi import Generator

PAGE = Path(settings.BASE_DIR) / "docs" / "api.md"
MOUNT = "/o/{organization}/api/v1/"
DOORS = "Doors of agents"

INTRODUCTION = """\
# API

<!-- Made from the OpenAPI document by `manage.py api_reference --write`; edit that, not this. -->

Everything a page can do, a program can do. The same as OpenAPI: `/api/schema/`; to try it in a
browser: `/api/docs/`. What agents send is described in [wire.md](wire.md).

An organization's resources lie below `/o/<slug>/api/v1/`. Authenticate with a key of scope `read`
(as a viewer) or `admin` (as an admin) from *Settings → Keys*:

    curl -H "Authorization: Bearer snt_…" https://sentinella.example.org/o/acme/api/v1/servers/

A signed-in browser's session works as well; writes then need its CSRF token. Paths end with a slash
as written. Bodies are JSON. Times are ISO 8601 in UTC, or Unix seconds where a field is a number;
spans are seconds; sizes are bytes; percentages are 0 to 100.

Lists are `{"next": …, "previous": …, "results": […]}`, newest first; follow `next` until it is
null. `size` is at most 500. Rows that arrive meanwhile neither repeat nor hide others.

Errors are RFC 9457 documents (`application/problem+json`):

    {"type": "/problems/not-valid", "title": "Some fields are not valid", "status": 422,
     "detail": "One or more fields are not valid; see errors.",
     "errors": {"name": [{"message": "This field is required.", "code": "required"}]}}

Any request may be answered 401 (no valid key or session), 403 (the role or scope does not allow
it), 404 (nothing there, or not yours) or 422 (see `errors`), and carries `X-Request-ID`, which is
in the server's log too.
"""


class Command(BaseCommand):
    help = "Print docs/api.md, made from the OpenAPI document and the problems that are declared."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--write", action="store_true", help="write docs/api.md")
        parser.add_argument("--check", action="store_true", help="fail if docs/api.md is outdated")

    def handle(self, *, write: bool, check: bool, **_: Any) -> None:
        page = reference()
        if write:
            PAGE.write_text(page)
        elif check:
            if not PAGE.exists() or PAGE.read_text() != page:
                self.stderr.write("docs/api.md is outdated: manage.py api_reference --write")
                sys.exit(1)
        else:
            self.stdout.write(page, ending="")


def reference() -> str:
    """The whole page as Markdown."""
    schema: dict[str, Any] = Generator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    _write_out_choices(schema, schema["components"]["schemas"])
    parts = [INTRODUCTION, "## Resources\n"]
    for resource, operations in sorted(_by_resource(schema).items()):
        parts.append(f"### {resource}\n")
        said = {operation.get("description", "") for _, _, operation in operations}
        if len(said) == 1 and resource != DOORS:  # of the resource, not of one way to use it
            parts.append(" ".join(said.pop().split()) + "\n")
            operations = [(how, path, {**op, "description": ""}) for how, path, op in operations]
        parts += [_operation(*operation) for operation in operations]
    parts.append("## Objects\n")
    for name, component in sorted(schema["components"]["schemas"].items()):
        if component.get("properties") and not name.startswith(("Paginated", "Patched")):
            parts.append(_object(name, component))
    parts.append(_problems())
    return "\n".join(parts)


def _write_out_choices(part: Any, components: dict[str, Any]) -> None:
    """Put the values of an enumeration wherever only its name stands."""
    if isinstance(part, dict):
        if "$ref" in part:
            named = components.get(part["$ref"].rpartition("/")[2], {})
            if "enum" in named:
                del part["$ref"]
                part["enum"] = named["enum"]
        for inner in list(part.values()):
            _write_out_choices(inner, components)
    elif isinstance(part, list):
        for inner in part:
            _write_out_choices(inner, components)


# -- resources ----------------------------------------------------------------


def _by_resource(schema: dict[str, Any]) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    found = defaultdict(list)
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if path.startswith(MOUNT):
                resource = path[len(MOUNT) :].partition("/")[0].replace("-", " ").capitalize()
            else:
                resource = DOORS
            found[resource].append((method.upper(), path, operation))
    return found


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [f"#### `{method} {path}`\n"]
    text = " ".join((operation.get("summary") or operation.get("description") or "").split())
    more = " ".join((operation.get("description") or "").split())
    lines += [f"{text.rstrip('.')}.\n"] if text else []
    lines += [f"{more}\n"] if operation.get("summary") and more else []
    asked = [one for one in operation.get("parameters", []) if _is_shown(method, path, one)]
    if asked:
        lines.append("| parameter | type | |\n| --- | --- | --- |")
        lines += [
            f"| `{one['name']}` | {_type(one['schema'])} | {_notes(one, one.get('required'))} |"
            for one in asked
        ]
        lines.append("")
    if body := operation.get("requestBody"):
        lines.append(f"Body: {_content(body)}\n")
    for status, answer in operation.get("responses", {}).items():
        said = [part for part in (_content(answer), answer.get("description", "")) if part]
        lines.append(f"- **{status}** {': '.join(said) or 'no body'}")
    return "\n".join(lines) + "\n"


def _is_shown(method: str, path: str, parameter: dict[str, Any]) -> bool:
    """Path parameters speak for themselves; a list's filters mean nothing elsewhere."""
    one_row = path.startswith(MOUNT) and re.search(r"\{id\}/(acknowledge/|resolve/)?$", path)
    return parameter["in"] != "path" and not one_row


def _content(of: dict[str, Any]) -> str:
    for kind, content in of.get("content", {}).items():
        shown = _type(content.get("schema", {}))
        return f"{shown} ({kind})" if kind and "json" not in kind else shown
    return ""


# -- objects ------------------------------------------------------------------


def _object(name: str, component: dict[str, Any]) -> str:
    lines = [f"### {name}\n"]
    if text := " ".join(component.get("description", "").split()):
        lines.append(f"{text}\n")
    lines.append("| field | type | |\n| --- | --- | --- |")
    required = component.get("required", [])
    lines += [
        f"| `{field}` | {_type(shape)} | {_notes(shape, field in required)} |"
        for field, shape in component["properties"].items()
    ]
    return "\n".join(lines) + "\n"


def _type(shape: dict[str, Any]) -> str:
    if "$ref" in shape:
        name = shape["$ref"].rpartition("/")[2]
        if paginated := re.fullmatch(r"Paginated(\w+)List", name):
            return f"a page of [{paginated[1]}](#{paginated[1].lower()})"
        if patched := re.fullmatch(r"Patched(\w+)", name):
            return f"some fields of [{patched[1]}](#{patched[1].lower()})"
        return f"[{name}](#{name.lower()})"
    for joint in ("oneOf", "allOf", "anyOf"):
        if joint in shape:
            return " or ".join(filter(None, (_type(one) for one in shape[joint])))
    if "enum" in shape:
        return ", ".join(f"`{value}`" if value else "empty" for value in shape["enum"])
    if shape.get("type") == "array":
        return f"list of {_type(shape.get('items', {}))}"
    if shape.get("type") == "object":
        values_of = shape.get("additionalProperties") or {}
        return (
            f"object of {_type(values_of)}"
            if isinstance(values_of, dict) and values_of
            else "object"
        )
    named = {"date-time": "time", "uuid": "UUID", "email": "e-mail", "binary": "file"}
    kind = named.get(shape.get("format", ""), shape.get("type", "any"))
    return f"{kind} or null" if shape.get("nullable") else str(kind)


def _notes(shape: dict[str, Any], required: object) -> str:
    inner = {**shape, **shape.get("schema", {})}
    notes: list[str] = []
    if inner.get("readOnly"):
        notes.append("read only")
    elif required:
        notes.append("required")
    notes += [f"default {inner['default']!r}"] if inner.get("default") not in (None, "") else []
    notes += [f"at most {inner['maxLength']} characters"] if "maxLength" in inner else []
    text = " ".join(str(shape.get("description", "")).split())
    text = re.sub(r"(?:\\n)?\* `[^`]*` - .*", "", text).strip()
    return "; ".join(notes) + (f"{'. ' if notes else ''}{text}" if text else "")


# -- problems -----------------------------------------------------------------


def _problems() -> str:
    """All that are declared anywhere below the URL configurations."""
    for urlconf in (settings.ROOT_URLCONF, settings.PUBLIC_SCHEMA_URLCONF):
        _ = get_resolver(urlconf).url_patterns  # imports every view
    rows = sorted({(one.status, one.code, one.title) for one in _below(Problem)})
    lines = ["## Problems\n", "The last part of `type`:\n", "| code | status | title |"]
    lines.append("| --- | --- | --- |")
    lines += [f"| `{code}` | {status} | {title} |" for status, code, title in rows]
    return "\n".join(lines) + "\n"


def _below(kind: type[Problem]) -> Iterator[type[Problem]]:
    for one in kind.__subclasses__():
        if not one.__module__.startswith("tests."):
            yield one
        yield from _below(one)
