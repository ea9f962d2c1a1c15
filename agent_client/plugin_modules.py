"""Where a plugin's module lies and which functions it has, found without running any of it."""

from __future__ import annotations

import ast
import os
from typing import Sequence

#: The original installs plugins as modules of its own package.
_PREFIX = "sentinella."


def locate(module: str, paths: Sequence[str]) -> str | None:
    """The file of a module: `name.py` or `name/__init__.py` below one of the paths.

    A name of the original, `sentinella.docker`, is also found as `docker`.
    """
    names = [module]
    if module.startswith(_PREFIX):
        names.append(module[len(_PREFIX) :])
    for path in paths:
        for name in names:
            base = os.path.join(path, *name.split("."))
            for file in (base + ".py", os.path.join(base, "__init__.py")):
                if os.path.isfile(file):
                    return file
    return None


def functions(file: str) -> set[str]:
    """Names that the module defines or imports at its top level. Raises SyntaxError, OSError."""
    with open(file, "rb") as source:
        tree = ast.parse(source.read(), file)
    found = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, (ast.ImportFrom, ast.Import)):
            found.update(one.asname or one.name for one in node.names)
    return found
