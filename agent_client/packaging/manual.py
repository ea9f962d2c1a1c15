"""The manual page, made from the command line itself. Format: man(7)."""

from __future__ import annotations

import click

from agent_client.cli import program
from agent_client.wire import VERSION


def manual() -> str:
    """The text of sentinella(1)."""
    context = click.Context(program, info_name="sentinella")
    lines = [
        f'.TH SENTINELLA 1 "" "sentinella {VERSION}" "Sentinella"',
        ".SH NAME",
        r"sentinella \- watch an OpenStack server and report to Sentinella",
        ".SH SYNOPSIS",
        r"\fBsentinella\fR [\fIOPTION\fR]... \fIVERB\fR [\fIARGUMENT\fR]...",
        ".SH DESCRIPTION",
        _text(program.help or ""),
        ".SH OPTIONS",
        *_options(program, context),
        ".SH VERBS",
    ]
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        if command is None or command.hidden:
            continue
        inside = click.Context(command, info_name=name, parent=context)
        usage = " ".join(command.collect_usage_pieces(inside))
        lines += [".SS", _escape(f"{name} {usage}"), _text(command.help or ""), ".RS"]
        lines += [*_options(command, inside), ".RE"]
    lines += [
        ".SH FILES",
        *(".TP", r"\fI/etc/sentinella/agent.toml\fR", "The configuration."),
        *(".TP", r"\fI/etc/sentinella/sentinella.conf\fR", "That of the original agent, as it is."),
        *(".TP", r"\fI/var/lib/sentinella\fR", "The spool, and where each log was read up to."),
        ".SH EXIT STATUS",
        "0: all is well. 1: something is wrong, and said. 2: usage or configuration.",
        "3: the server cannot be reached or refuses. 4: not permitted on this host.",
        "5: another agent or the spool is in the way.",
    ]
    return "\n".join(lines) + "\n"


def _options(command: click.Command, context: click.Context) -> list[str]:
    found = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            found += [".TP", rf"\fB{_escape(record[0])}\fR", _text(record[1])]
    return found


def _text(text: str) -> str:
    paragraphs = [" ".join(part.split()) for part in text.replace("\b", "").split("\n\n")]
    return "\n.PP\n".join(_escape(part) for part in paragraphs if part)


def _escape(text: str) -> str:
    escaped = text.replace("\\", r"\\").replace("-", r"\-")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped
