"""Which series a rule is for, by their tags: equal to a text, one of several, or none of them.

As data `{"mount": "/var"}`, `{"mount": ["/", "/var"]}`, `{"fstype": {"not": ["tmpfs"]}}`; as people
write it `mount=/var`, `mount=/|/var`, `fstype!=tmpfs`, separated by commas. A series without the
tag has an empty one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Selector = Mapping[str, Any]
HOW = "Write tags as mount=/var, mount=/|/var for one of several, fstype!=tmpfs for all others."


class BadSelector(ValueError):
    """It can't be read; the text says what to do."""


def matches(selector: Selector, tags: Mapping[str, str]) -> bool:
    """Whether a series with these tags is meant."""
    for name, wanted in selector.items():
        value = tags.get(name, "")
        if isinstance(wanted, Mapping):
            if value in wanted["not"]:
                return False
        elif isinstance(wanted, str):
            if value != wanted:
                return False
        elif value not in wanted:
            return False
    return True


def parse(text: str) -> dict[str, Any]:
    """What people write. Raises BadSelector."""
    found: dict[str, Any] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        name, equals, values = part.partition("=")
        negated = name.endswith("!")
        name = name.removesuffix("!").strip()
        if not name or not equals:
            raise BadSelector(HOW)
        if name in found:
            raise BadSelector(f"{name} is named twice; write {name}=one|other.")
        choices = [value.strip() for value in values.split("|")]
        if negated:
            found[name] = {"not": choices}
        else:
            found[name] = choices[0] if len(choices) == 1 else choices
    return found


def write(selector: Selector) -> str:
    """As people write it; `parse` reads it back."""
    return ", ".join(f"{name}{sign}{said}" for name, sign, said in said_of(selector))


def said_of(selector: Selector) -> Iterable[tuple[str, str, str]]:
    """Name, `=` or `!=`, and the values, for each tag."""
    for name, wanted in selector.items():
        if isinstance(wanted, Mapping):
            yield name, "!=", "|".join(wanted["not"])
        else:
            yield name, "=", wanted if isinstance(wanted, str) else "|".join(wanted)


def error(selector: object) -> str:
    """What is wrong with it as data; empty if nothing is."""
    if not isinstance(selector, Mapping):
        return HOW
    for name, wanted in selector.items():
        values = wanted
        if isinstance(wanted, Mapping):
            if set(wanted) != {"not"}:
                return f"Of {name} give a text, a list of texts, or not: with a list."
            values = wanted["not"]
            if isinstance(values, str):
                return f"Give a list after not: of {name}."
        if not isinstance(name, str) or not (
            isinstance(values, str)
            or (
                isinstance(values, list)
                and values
                and all(isinstance(value, str) for value in values)
            )
        ):
            return f"Of {name} give a text, a list of texts, or not: with a list."
        texts = [values] if isinstance(values, str) else values
        if any(mark in text for text in (name, *texts) for mark in ",|") or name.endswith("!"):
            return f"The tag {name} and its values can't hold a comma or |."
    return ""
