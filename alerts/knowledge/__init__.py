"""Known failures: what a log line means, what causes it, what to check and what to do.

One YAML file a project, named like it; `docs/knowledge.md` says how an entry is made. `explain`
finds the entry of a line; `explain_all` those of many lines, most frequent first.
"""

from __future__ import annotations

from alerts.knowledge.entries import (
    DEPENDENCIES,
    EVIDENCE,
    BadKnowledge,
    Check,
    Entry,
    Example,
    Pattern,
    read_folder,
)
from alerts.knowledge.explaining import Known, entries, explain, explain_all, matching

__all__ = [
    "DEPENDENCIES",
    "EVIDENCE",
    "BadKnowledge",
    "Check",
    "Entry",
    "Example",
    "Known",
    "Pattern",
    "entries",
    "explain",
    "explain_all",
    "matching",
    "read_folder",
]
