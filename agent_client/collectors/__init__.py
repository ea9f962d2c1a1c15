"""The collectors that every agent runs, in the order in which they run."""

from __future__ import annotations

from agent_client.collector import Collector
from agent_client.collectors.cpu import Cpu
from agent_client.collectors.disk import Disk
from agent_client.collectors.disk_io import DiskIo
from agent_client.collectors.load import Load
from agent_client.collectors.memory import Memory
from agent_client.collectors.network import Network
from agent_client.collectors.service import Service
from agent_client.collectors.swap import Swap

COLLECTORS: tuple[type[Collector], ...] = (
    Cpu,
    Load,
    Memory,
    Swap,
    Disk,
    DiskIo,
    Network,
    Service,
)
