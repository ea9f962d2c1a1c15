"""Where a plugin's module lies and which functions it has, found without running any of it."""

from __future__ import annotations

import ast
import os
import stat
from typing import Collection, Iterator, Sequence

#: The original installs plugins as modules of its own package.
_PREFIX = "sentinella."


def config_names(module: str) -> set[str]:
    """The files of `plugins_dir`, without `.conf`, that belong to a module by their name.

    For `sentinella.docker.stats`: `docker`, the plugin's folder, and the module's own names.
    """
    bare = module[len(_PREFIX) :] if module.startswith(_PREFIX) else module
    return {module, bare, bare.partition(".")[0]}


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


def unsafe(
    module: str, paths: Sequence[str], uid: int | None = None, gid: int | None = None
) -> str:
    """What keeps a module from being run: that others than root and the agent's user can change it.

    Empty where they cannot. Looked at are the directories of plugins, all above them, the module's
    own folder with all in it, and where links lead. `uid` and `gid` are the agent's; without them,
    this process's.
    """
    users = {0, os.geteuid() if uid is None else uid}
    groups = {0, os.getegid() if gid is None else gid}
    try:
        for path in filter(os.path.isdir, paths):
            _demand(path, users, groups)
            _demand_above(path, users)
        file = locate(module, paths)
        if file is not None:
            path = next(path for path in paths if file.startswith(os.path.join(path, "")))
            own = os.path.relpath(file, path).partition(os.sep)[0]
            for one in _all_in(os.path.join(path, own)):
                _demand(one, users, groups)
                if os.path.islink(one):
                    _demand_above(one, users)
    except _Loose as error:
        return str(error)
    except OSError as error:
        return f"{error.filename} ({error.strerror}): let the agent's user read it"
    return ""


class _Loose(Exception):
    """Others can change it."""


def _all_in(top: str) -> Iterator[str]:
    """It, and all below it, through links; each once."""
    seen = set()
    left = [top]
    while left:
        path = left.pop()
        real = os.path.realpath(path)
        if real in seen or not os.path.exists(real):
            continue
        seen.add(real)
        yield path
        if os.path.isdir(path):
            left.extend(os.path.join(path, name) for name in os.listdir(path))


def _demand(path: str, users: Collection[int], groups: Collection[int]) -> None:
    said = os.stat(path)
    if said.st_uid not in users:
        raise _Loose(f"{path} belongs to user {said.st_uid}: chown root {path}")
    if said.st_mode & stat.S_IWOTH or (said.st_mode & stat.S_IWGRP and said.st_gid not in groups):
        raise _Loose(f"others may write to {path}: chmod go-w {path}")


def _demand_above(path: str, users: Collection[int]) -> None:
    """Who can write to a directory above could put another in the place of what is below."""
    for way in {os.path.abspath(path), os.path.realpath(path)}:
        above = os.path.dirname(way)
        while True:
            said = os.stat(above)
            if said.st_uid not in users:
                raise _Loose(f"{above} belongs to user {said.st_uid}: chown root {above}")
            if said.st_mode & stat.S_IWOTH and not said.st_mode & stat.S_ISVTX:
                raise _Loose(f"others may write to {above}: chmod o-w {above}")
            if above == os.path.dirname(above):
                break
            above = os.path.dirname(above)


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
