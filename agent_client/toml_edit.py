"""Changes single values of a TOML text and leaves every other byte as its author wrote it."""

from __future__ import annotations

import json
import re
import sys
from typing import Iterator, Mapping, Sequence

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_BARE = re.compile(r"[A-Za-z0-9_-]+$")


def literal(value: str | Sequence[str]) -> str:
    """A text or a list of texts as TOML writes it: JSON, but for characters outside ASCII."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def put(text: str, table: str, values: Mapping[str, str | None]) -> str:
    """`text` with these values in the section `[table]`; None takes the option away.

    Values are TOML literals. A section that is missing is added at the end. Raises ValueError
    where the text is not TOML or writes the section in another way (dotted keys, inline).
    """
    before = tomllib.loads(text)
    statements = list(_statements(text))
    kept: list[str] = []
    inside = False
    insert_at: int | None = None
    for statement in statements:
        stripped = statement.strip()
        if stripped.startswith("["):
            inside = _is_header(stripped, table)
            kept.append(statement)
            if inside:
                insert_at = len(kept)
            continue
        if inside and stripped and not stripped.startswith("#"):
            (name,) = tomllib.loads(statement)
            if name in values:
                if values[name] is not None:
                    kept.append(f"{_key(name)} = {values[name]}\n")
                    insert_at = len(kept)
                continue
        kept.append(statement)
    known = before.get(table, {}) if insert_at is not None else {}
    fresh = [
        f"{_key(name)} = {value}\n"
        for name, value in values.items()
        if value is not None and name not in known
    ]
    if fresh:
        if insert_at is None:
            if kept and not kept[-1].endswith("\n"):
                kept[-1] += "\n"
            kept += ["\n"] if kept and kept[-1].strip() else []
            kept.append(f"[{table}]\n")
            insert_at = len(kept)
        elif not kept[insert_at - 1].endswith("\n"):
            kept[insert_at - 1] += "\n"
        kept[insert_at:insert_at] = fresh
    made = "".join(kept)
    after = {name: tomllib.loads(f"x = {v}")["x"] for name, v in values.items() if v is not None}
    rest = {name: v for name, v in before.get(table, {}).items() if name not in values}
    wanted = {**rest, **after}
    expected = {**before, **({table: wanted} if wanted or table in before else {})}
    try:
        as_meant = tomllib.loads(made) == expected
    except tomllib.TOMLDecodeError:
        as_meant = False
    if not as_meant:
        raise ValueError(f"write the options of {table} below a line [{table}]")
    return made


def _statements(text: str) -> Iterator[str]:
    """The text in pieces: a header, an option with all lines of its value, a comment, a blank."""
    pending = ""
    for line in text.splitlines(keepends=True):
        pending += line
        try:
            tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            continue
        yield pending
        pending = ""
    if pending:
        yield pending


def _is_header(line: str, table: str) -> bool:
    try:
        return bool(tomllib.loads(line) == {table: {}})
    except tomllib.TOMLDecodeError:
        return False


def _key(name: str) -> str:
    return name if _BARE.match(name) else literal(name)
