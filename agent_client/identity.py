"""Who this agent is."""

from __future__ import annotations

import os
import uuid

from agent_client.config import ConfigError
from agent_client.private_files import write_private


def agent_id(state_dir: str) -> str:
    """This agent's id, made once and kept in the state directory. Raises OSError."""
    path = os.path.join(state_dir, "agent-id")
    try:
        with open(path, encoding="ascii") as file:
            return str(uuid.UUID(file.read().strip()))
    except FileNotFoundError:
        made = str(uuid.uuid4())
    except ValueError:
        raise ConfigError(f"{path} holds no agent id: remove it to get a new one") from None
    write_private(path, made + "\n")
    return made
