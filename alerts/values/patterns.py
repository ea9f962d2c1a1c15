"""Regular expressions that people give, by RE2: its time is linear in the text, whatever they are.

Python's own `re` may take hours for `(a+)+$`. RE2 has no back-references and no look-around, and
says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import re2

LONGEST = 300
#: Bytes that one compiled pattern may take.
MOST_MEMORY = 1 << 20
#: Of a message only so many characters are searched.
LOOK_AT = 4096


class BadPattern(ValueError):
    """It is no regular expression that can be used; the text says why and what to do."""


@lru_cache(maxsize=500)
def compiled(pattern: str) -> Any:
    """The pattern, case ignored, as an object with `search`. Raises BadPattern."""
    if len(pattern) > LONGEST:
        raise BadPattern(f"At most {LONGEST} characters; split it into several rules.")
    options = re2.Options()
    options.max_mem = MOST_MEMORY
    options.log_errors = False
    options.case_sensitive = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise BadPattern(_why(str(error.args[0] if error.args else error))) from None


def tester(pattern: str) -> Callable[[str], bool]:
    """Tells whether a message has it somewhere in its first LOOK_AT characters."""
    search = compiled(pattern).search
    return lambda message: search(message[:LOOK_AT]) is not None


def _why(said: str) -> str:
    said = said.removeprefix("b'").removesuffix("'")
    if "too large" in said or "too big" in said or "repetition size" in said:
        return f"It becomes too large ({said}). Use fewer or smaller repetitions."
    if "perl operator" in said or "escape sequence" in said:
        return f"Look-around and back-references can't be used ({said}). Name words instead."
    return f"It is no regular expression of RE2: {said}."
