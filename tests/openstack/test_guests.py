"""Guests through Debian's virsh, with the driver that libvirt has for tests."""

from __future__ import annotations

import pytest

from agent_client import libvirt

pytestmark = pytest.mark.openstack


def test_what_virsh_prints_today_is_understood() -> None:
    (guest,) = libvirt.ask(uri="test:///default")
    assert (guest.name, guest.kind) == ("test", libvirt.RUNNING)
    assert guest.uuid == "6695eb01-f6a4-8304-79aa-97f2502e193f"
