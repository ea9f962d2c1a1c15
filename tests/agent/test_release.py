"""Which OpenStack release the packages of a host make."""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path

import pytest

from agent_client.discovery.catalogue import catalogue
from agent_client.discovery.host import Container, Host
from agent_client.discovery.release import (
    Version,
    judge,
    of_program,
    release_of,
    releases,
    versions,
)

from .recorded import RecordedHost


@pytest.mark.parametrize(
    ("project", "version", "release"),
    [
        ("nova", "12.0.6", "Liberty"),
        ("nova", "13.1.4", "Mitaka"),
        ("nova", "17.0.13", "Queens"),
        ("nova", "26.2.2", "Zed"),
        ("nova", "26.0.0.0rc1", "Zed"),
        ("nova", "27.1.0", "2023.1 Antelope"),
        ("nova", "33.0.2", "2026.1 Gazpacho"),
        ("nova", "34.0.0", "2026.2 Hibiscus"),
        ("nova", "35.0.0", ""),  # newer than the table
        ("nova", "11.0.0", ""),  # no such version
        ("nova", "2015.1.2", "Kilo"),
        ("keystone", "22.0.2", "Zed"),
        ("neutron", "21.0.0", "Zed"),
        ("placement", "8.0.0", "Zed"),
        ("heat", "19.0.0", "Zed"),
        ("swift", "2.17.1", "Queens"),
        ("swift", "2.30.1", "Zed"),
        ("ironic", "21.1.2", "Zed"),
        ("ironic", "29.0.6", "2025.1 Epoxy"),
        ("horizon", "23.0.2", "Zed"),
        ("horizon", "18.3.5", "Ussuri"),
        ("horizon", "18.4.1", "Victoria"),
        ("octavia", "0.10.0", "Ocata"),
        ("kolla", "20.1.0", "2025.1 Epoxy"),
        ("gnocchi", "4.5.0", ""),
        ("nova", "", ""),
        ("nova", "unknown", ""),
    ],
)
def test_a_version_names_its_release(project: str, version: str, release: str) -> None:
    assert release_of(project, version) == release


def test_the_table_goes_from_liberty_to_the_newest_without_a_gap() -> None:
    names = [one.name for one in releases()]
    assert (names[0], names[-1], len(names)) == ("Liberty", "2026.2 Hibiscus", 23)
    firsts = [one.first["nova"][0] for one in releases()]
    assert firsts == list(range(12, 35))
    for project in {name for one in releases() for name in one.first}:
        known = [one.first[project] for one in releases() if project in one.first]
        assert known == sorted(known), project


def test_most_projects_decide_and_the_rest_is_said() -> None:
    verdict = judge(
        [
            Version("nova", "26.2.2", "/a/nova-26.2.2.dist-info"),
            Version("keystone", "22.0.2", "dpkg keystone-common"),
            Version("glance", "24.2.1", "dpkg glance-common"),
            Version("cinder", "99.0.0", "dpkg cinder-common"),
        ]
    )
    assert verdict.release == "Zed"
    assert verdict.version == "26.2.2"
    assert "nova-26.2.2" in verdict.evidence
    assert verdict.doubts == (
        "cinder 99.0.0 (dpkg cinder-common) is in no known release",
        "glance 24.2.1 (dpkg glance-common) is of Yoga",
    )


def test_two_versions_of_one_project_are_said(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path / "r")
    host.file("/usr/lib/python3/dist-packages/nova-26.2.2.egg-info")
    host.package("nova-common", "3:25.2.1-0ubuntu2")
    found = versions(Host(str(host.root)), catalogue(), [], [])
    verdict = judge(found)
    assert verdict.release == "Zed"
    assert any("25.2.1" in doubt and "both here" in doubt for doubt in verdict.doubts)


def test_dpkg_tells_installed_packages_only(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path / "r")
    host.package("heat-common", "1:19.0.0-3")
    status = host.root / "var/lib/dpkg/status"
    status.write_text(
        status.read_text()
        + "Package: nova-common\nStatus: deinstall ok config-files\nVersion: 2:26.2.2-1~deb12u5\n"
    )
    found = versions(Host(str(host.root)), catalogue(), [], [])
    assert [(one.project, one.version, one.evidence) for one in found] == [
        ("heat", "19.0.0", "dpkg heat-common")
    ]


def rpm_header(**tags: str) -> bytes:
    """A package's header as rpm keeps it: index entries, then the strings."""
    numbers = {"name": 1000, "version": 1001, "release": 1002}
    index, data = b"", b""
    for tag, value in tags.items():
        index += struct.pack(">IIII", numbers[tag], 6, len(data), 1)
        data += value.encode() + b"\0"
    return struct.pack(">II", len(tags), len(data)) + index + data


def test_rpm_s_database_is_read(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path / "r")
    path = host.file("/var/lib/rpm/rpmdb.sqlite")
    path.unlink()
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
    database.execute("CREATE TABLE Name (key TEXT NOT NULL, hnum INTEGER, idx INTEGER)")
    for number, (name, version) in enumerate(
        [("openstack-nova-common", "29.2.0"), ("bash", "5.1.8"), ("openstack-keystone", "25.0.0")]
    ):
        blob = rpm_header(name=name, version=version, release="1.el9")
        database.execute("INSERT INTO Packages VALUES (?, ?)", (number, blob))
        database.execute("INSERT INTO Name VALUES (?, ?, 0)", (name, number))
    database.commit()
    database.close()
    found = versions(Host(str(host.root)), catalogue(), [], [])
    assert {(one.project, one.version) for one in found} >= {("nova", "29.2.0")}
    assert judge(found).release == "2024.1 Caracal"


@pytest.mark.parametrize(
    ("name", "image", "label", "release"),
    [
        ("nova_api", "quay.io/openstack.kolla/nova-api:2025.1-ubuntu-noble", "", "2025.1 Epoxy"),
        ("nova_api", "registry:4000/kolla/centos-source-nova-api:train", "", "Train"),
        ("nova_api", "registry:4000/ours/nova-api:build-77", "9.4.0", "Train"),
        ("nova_api", "registry:4000/ours/nova-api:build-77", "", ""),
        ("nova-api-osapi", "docker.io/openstackhelm/nova:2024.1-ubuntu_jammy", "",
         "2024.1 Caracal"),
        ("nova_api", "quay.io/tripleowallabycentos9/openstack-nova-api:current-tripleo", "",
         ""),
        ("nova_api", "registry.redhat.io/rhosp-rhel9/openstack-nova-api:17.1", "", "Wallaby"),
        ("shop", "registry:5000/shop:zed", "", ""),
    ],
)  # fmt: skip
def test_an_image_tells_its_release(
    name: str, image: str, label: str, release: str, tmp_path: Path
) -> None:
    labels = (("kolla_version", label),) if label else ()
    container = Container("0" * 64, name, image, labels=labels)
    found = versions(Host(str(tmp_path)), catalogue(), [container], [])
    assert judge(found).release == release


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("26.2.2\n", "26.2.2"),
        ("neutron-server 21.0.0\n", "21.0.0"),
        ("Modules with known eventlet monkey patching issues\n26.2.2\n", "26.2.2"),
        ("Traceback (most recent call last):\n", ""),
    ],
)
def test_what_nova_manage_prints_is_understood(output: str, version: str) -> None:
    assert of_program(output) == version
