"""Which entry a log line is: cheap enough for every line of a page."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from alerts.knowledge.entries import Entry, read_folder

#: What is read of a line, in characters; what a traceback says first and last.
HEAD = 2000
TAIL = 1000


@dataclass(frozen=True, slots=True)
class Known:
    """An entry, and how many of the lines it explains."""

    entry: Entry
    count: int


@functools.cache
def entries() -> tuple[Entry, ...]:
    """All entries, most specific first; read once. Raises BadKnowledge."""
    return read_folder(Path(__file__).parent)


def explain(service: str, message: str) -> Entry | None:
    """The most specific entry that matches.

    What a traceback's first line says goes before what stands in the lines below it.
    """
    first, _, below = message.partition("\n")
    found = next(matching(service, first), None)
    if found is None and below:
        found = next(matching(service, below), None)
    return found


def matching(service: str, text: str) -> Iterator[Entry]:
    """Every entry that matches, most specific first."""
    if len(text) > HEAD + TAIL:
        text = f"{text[:HEAD]}\n{text[-TAIL:]}"
    return (entry for entry in entries() if entry.matches(service, text))


def explain_all(lines: Iterable[tuple[str, str]], most: int) -> list[Known]:
    """The entries of (service, message), the most frequent first, each once."""
    found = Counter(filter(None, (explain(service, message) for service, message in lines)))
    ordered = sorted(found.items(), key=lambda one: (-one[1], one[0].id))
    return [Known(entry, count) for entry, count in ordered[:most]]
