"""Which service a process is, by its command line.

The kernel cuts a process's name to 15 characters, and interpreters, uwsgi and mod_wsgi hide the
program behind their own name. So the command line is read: the script that Python runs, the
application's configuration (`--ini /etc/nova/nova-api-uwsgi.ini`), the group in mod_wsgi's title
(`(wsgi:keystone-pu`, cut to the length of `/usr/sbin/apache2`; with a display name of its own
`heat_api_cfn_ws -DFOREGROUND`), what uwsgi's titles begin with
(`nova-apiuWSGI worker 1`), and the command that setproctitle leaves in brackets behind a title
(`neutron-server: rpc worker (/usr/bin/python3 /usr/bin/neutron-rpc-server …)`).

A process that only names a service (an editor, `tail`, `ssh`, a shell) is not it: what counts is
the program itself and, behind Python, the script it runs.
"""

from __future__ import annotations

import re
from typing import Iterator, Sequence

from agent_client.discovery.catalogue import Catalogue, Kind

_PYTHON = re.compile(r"(python|pypy)[\d.]*$")
_INTERPRETER = re.compile(r"(python|pypy|perl|ruby|node|php|bash|dash|sh|env)[\d.]*$")
_UWSGI = re.compile(r"uwsgi([-_].*)?$")
_UWSGI_TITLE = re.compile(r"(?P<name>.*?)\s*uWSGI (master|worker|http|spooler|mule|fastrouter)")
_GUNICORN = re.compile(r"gunicorn\d?$")
_WSGI_TITLE = re.compile(r"\(wsgi:(?P<name>[^\s)]*)(?P<end>\)?)")
_APACHE = ("httpd", "apache2")
#: mod_wsgi writes its title over argv[0]: `/usr/sbin/httpd` is 15 long, so no cut one is shorter.
_CUT_FROM = 15
#: Tools that carry a service's name or options on their command line without being it.
_HELPERS = re.compile(r"(privsep-helper|.*-rootwrap(-daemon)?|.*-manage)$")
#: One that answers a question and ends.
_ASKED = frozenset(("--version", "--help", "--configtest"))
_WITH_VALUE = frozenset(("-W", "-X", "--check-hash-based-pycs"))


def identify(comm: str, argv: Sequence[str], catalogue: Catalogue) -> Kind | None:
    """The service that a process is, or None.

    `comm` is the kernel's name of it; it only counts for one without a command line (a zombie).
    """
    raw = [word for part in argv for word in part.split()]
    if not raw:
        return _program(comm, (), catalogue) if comm else None
    title = _WSGI_TITLE.match(raw[0])
    if title:
        return _application(title.group("name"), not title.group("end"), raw[0], catalogue)
    if comm in _APACHE and "/" not in raw[0] and raw[0] not in _APACHE:
        return _application(raw[0], True, raw[0].ljust(_CUT_FROM), catalogue)
    uwsgi = _UWSGI_TITLE.match(" ".join(raw))
    if uwsgi:
        return _first(catalogue.ini, uwsgi.group("name"), "")
    if _ASKED.intersection(raw[1:3]):
        return None
    for program, rest in _commands(raw, catalogue):
        found = _program(program, rest, catalogue)
        if found is not None:
            return found
    return None


def _commands(raw: Sequence[str], catalogue: Catalogue) -> Iterator[tuple[str, Sequence[str]]]:
    """The command line that setproctitle kept behind a known title, then the line as it stands."""
    name = raw[0].rstrip(":")
    if name in catalogue.programs or _GUNICORN.match(name):
        for at, word in enumerate(raw[1:8], start=1):
            if word[0] in "([":
                rest = [word.strip("()[]") for word in raw[at:]]
                if rest[0]:
                    yield rest[0], rest[1:]
                break
    yield name, raw[1:]


def _program(program: str, rest: Sequence[str], catalogue: Catalogue) -> Kind | None:
    name = _basename(program)
    if _PYTHON.match(name):
        script, after = _script(rest)
        if not script or _HELPERS.match(_basename(script)):
            return None
        return _program(script, after, catalogue)
    if _HELPERS.match(name):
        return None
    if _UWSGI.match(name):
        return _uwsgi(rest, catalogue)
    if _GUNICORN.match(name):
        modules = (word.strip("[]").split(":")[0].split(".")[0] for word in rest)
        return next((catalogue.modules[m][0] for m in modules if m in catalogue.modules), None)
    return _first(catalogue.programs, name, " ".join((name, *rest)))


def _uwsgi(rest: Sequence[str], catalogue: Catalogue) -> Kind | None:
    """By `--ini FILE`, a bare FILE.ini, `--wsgi-file /usr/bin/nova-api-wsgi` or the like."""
    for word in rest:
        word = word.rpartition("=")[2] if word.startswith("--") else word
        if word.endswith(".ini"):
            name = re.sub(r"(-uwsgi)?\.ini$", "", _basename(word))
            found = _first(catalogue.ini, name, "") or _first(catalogue.programs, name, "")
            if found is not None:
                return found
    for option, value in zip(rest, rest[1:]):
        if option in ("--procname-prefix", "--procname-prefix-spaced", "--procname"):
            found = _first(catalogue.ini, value, "")
        elif option in ("--wsgi-file", "--module", "-w"):
            name = re.sub(r"-wsgi$|\.py$|:.*$", "", _basename(value))
            found = _first(catalogue.wsgi, name, "") or _first(catalogue.programs, name, "")
        else:
            found = None
        if found is not None:
            return found
    return None


def _application(name: str, may_be_cut: bool, title: str, catalogue: Catalogue) -> Kind | None:
    found = _first(catalogue.wsgi, name, "")
    if found is not None or not may_be_cut or len(title) < _CUT_FROM or len(name) < 4:
        return found
    longer = {
        kind.name: kind
        for group, kinds in catalogue.wsgi.items()
        if group.startswith(name)
        for kind in kinds
    }
    return next(iter(longer.values())) if len(longer) == 1 else None


def _first(index: dict[str, list[Kind]], name: str, line: str) -> Kind | None:
    """The kind of this name; an empty line means that there are no arguments to tell by."""
    for kind in index.get(name, ()):
        if not line or kind.suits(line):
            return kind
    return None


def _script(rest: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The script that an interpreter runs, and what follows it."""
    skip = False
    for at, word in enumerate(rest):
        if skip:
            skip = False
        elif word in _WITH_VALUE:
            skip = True
        elif word in ("-c", "-"):
            return "", ()
        elif word == "-m":
            module = rest[at + 1] if at + 1 < len(rest) else ""
            return module.split(".")[0] if module == "gunicorn" else "", rest[at + 2 :]
        elif not word.startswith("-"):
            return word, rest[at + 1 :]
    return "", ()


def names(comm: str, argv: Sequence[str]) -> set[str]:
    """The names by which an operator would call a process, for services named in configuration."""
    raw = [word for part in argv for word in part.split()]
    if not raw:
        return {comm}  # a zombie, or a kernel thread
    found: set[str] = set()
    title = _WSGI_TITLE.match(raw[0])
    if title:
        found.add(title.group("name"))
    uwsgi = _UWSGI_TITLE.match(" ".join(raw))
    if uwsgi:
        found.add(uwsgi.group("name"))
    commands = [(raw[0].strip("()[]"), list(raw[1:]))]
    for at, word in enumerate(raw[1:8], start=1):
        if word[0] in "([" and word.strip("()[]").startswith("/"):
            rest = [word.strip("()[]") for word in raw[at:]]
            commands.append((rest[0], rest[1:]))
            break
    for program, rest in commands:
        name = _basename(program)
        script = ""
        if _INTERPRETER.match(name):
            script = _basename(_script(rest)[0])
            if "-m" in rest[:6] and rest.index("-m") + 1 < len(rest):
                module = rest[rest.index("-m") + 1]
                found.update({module, module.split(".")[0]})
        if _HELPERS.match(name) or (script and _HELPERS.match(script)):
            return {name, script} - {""}
        found.update({name, script} - {""})
        if _UWSGI.match(name):
            found.update(
                re.sub(r"(-uwsgi)?\.ini$", "", _basename(word))
                for word in rest
                if word.endswith(".ini")
            )
    if len(comm) < 15:
        found.add(comm.rstrip(":"))
    return found


def _basename(path: str) -> str:
    return path.rsplit("/", 1)[-1].rstrip(":")
