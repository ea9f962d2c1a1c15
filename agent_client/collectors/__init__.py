"""The collectors that every agent runs, in the order in which they run."""

from __future__ import annotations

from agent_client.collector import Collector
from agent_client.collectors.certificate import Certificate
from agent_client.collectors.clock import Clock
from agent_client.collectors.cpu import Cpu
from agent_client.collectors.disk import Disk
from agent_client.collectors.disk_io import DiskIo
from agent_client.collectors.guests import Guests
from agent_client.collectors.haproxy import HaProxy
from agent_client.collectors.load import Load
from agent_client.collectors.mariadb import MariaDb
from agent_client.collectors.memcached import Memcached
from agent_client.collectors.memory import Memory
from agent_client.collectors.network import Network
from agent_client.collectors.openstack_api import OpenStackApi
from agent_client.collectors.pressure import Pressure
from agent_client.collectors.rabbitmq import RabbitMq
from agent_client.collectors.service import Service
from agent_client.collectors.swap import Swap
from agent_client.collectors.system import System

COLLECTORS: tuple[type[Collector], ...] = (
    Cpu,
    Load,
    Memory,
    Swap,
    Disk,
    DiskIo,
    Network,
    Pressure,
    System,
    Clock,
    Service,
    Guests,
    RabbitMq,
    MariaDb,
    Memcached,
    HaProxy,
    Certificate,
    OpenStackApi,
)
