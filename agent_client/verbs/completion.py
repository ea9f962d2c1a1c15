"""`sentinella completion`: what a shell needs to complete verbs and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from agent_client.verbs.common import OK, say, verb


@verb("completion", as_json=False, short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), default="bash")
def completion(shell: str) -> int:
    """Print what a shell needs to complete verbs and options.

    For bash: sentinella completion bash > /etc/bash_completion.d/sentinella
    """
    kind = get_completion_class(shell)
    root = click.get_current_context().find_root().command
    assert kind is not None  # noqa: S101 - click knows these three
    say(kind(root, {}, "sentinella", "_SENTINELLA_COMPLETE").source())
    return OK
