"""The one-line install: what the line fetches is what this installation speaks to."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from accounts import keys
from agent_client import wire
from agent_client.packaging import wheel as packed
from clouds import install
from tests.alerts.builders import make_server


@pytest.fixture
def packages(settings, tmp_path):
    """A directory of built packages, empty at first."""
    settings.AGENT_PACKAGES = tmp_path
    return tmp_path


def test_the_line_holds_a_token_that_works_once(client, alice):
    client.force_login(alice)
    page = client.post("/o/acme/servers/add/", headers={"HX-Request": "true"}).content.decode()
    token = page.split("&amp;&amp; echo snt_")[1].split()[0]
    assert keys.enrol(f"snt_{token}", uuid4(), "nova-1", datetime.now(UTC))
    with pytest.raises(keys.UnknownKey):
        keys.enrol(f"snt_{token}", uuid4(), "nova-1", datetime.now(UTC))


def test_the_line_runs_only_the_script_that_was_announced(client, db, packages, settings):
    settings.PUBLIC_URL = "https://watch.example"
    script = client.get("/install").content
    assert hashlib.sha256(script).hexdigest() in install.line("snt_token")
    before = install.line("snt_token")
    (packages / f"sentinella_{wire.VERSION}_amd64.deb").write_bytes(b"a package")
    assert install.line("snt_token") != before, "what is offered is part of the script"


def test_only_admins_take_install_lines(client, bob):
    client.force_login(bob)
    assert client.post("/o/acme/servers/add/").status_code == 403


def test_the_dialog_shows_the_server_once_it_has_reported(client, alice, acme):
    from django.db import connection

    token, text = keys.issue_enrol_token(acme, alice, datetime.now(UTC))
    client.force_login(alice)
    path = f"/o/acme/servers/add/?fragment=waiting&key={token.pk}"
    assert b"Waiting for the agent" in client.get(path).content
    agent = uuid4()
    keys.enrol(text, agent, "nova-1", datetime.now(UTC))
    assert b"Waiting for the first report" in client.get(path).content
    connection.set_tenant(acme)
    server = make_server("nova-1", agent_id=agent)
    page = client.get(path).content.decode()
    assert f"/o/acme/servers/{server.pk}/" in page


def test_the_script_checks_what_it_fetches(client, db, packages, settings):
    settings.PUBLIC_URL = "https://watch.example"
    name = f"sentinella_{wire.VERSION}_amd64.deb"
    (packages / name).write_bytes(b"a package")
    (packages / "sentinella_1.1_amd64.deb").write_bytes(b"of another version")
    script = client.get("/install").content.decode()
    assert "BASE='https://watch.example/install/'" in script
    assert [offer.kind for offer in install.offers()] == ["wheel", "deb"]
    for offer in install.offers():
        body = client.get(f"/install/{offer.name}").content
        assert f"NAME='{offer.name}' SHA256='{hashlib.sha256(body).hexdigest()}'" in script
    assert client.get("/install/sentinella_1.1_amd64.deb").status_code == 404
    assert client.get("/install/..%2Fwheel.py").status_code == 404


def test_configuration_management_learns_what_is_offered(client, db, packages, settings):
    settings.PUBLIC_URL = "https://watch.example"
    (packages / f"sentinella-{wire.VERSION}-1.x86_64.rpm").write_bytes(b"a package")
    told = client.get("/install/offers.json").json()
    assert told["version"] == wire.VERSION
    assert [(one["kind"], one["machine"]) for one in told["offers"]] == [
        ("wheel", "any"),
        ("rpm", "x86_64"),
    ]
    for one in told["offers"]:
        body = client.get(one["url"].removeprefix("https://watch.example")).content
        assert hashlib.sha256(body).hexdigest() == one["sha256"]


def test_a_package_that_was_built_anew_is_announced_anew(client, db, packages):
    path = packages / f"sentinella_{wire.VERSION}_amd64.deb"
    path.write_bytes(b"a package")
    before = client.get("/install").content
    path.write_bytes(b"a newer package")
    script = client.get("/install").content
    assert script != before
    assert hashlib.sha256(b"a newer package").hexdigest().encode() in script


def test_the_script_is_sound_shell_and_refuses_without_a_token(client, db, tmp_path):
    path = tmp_path / "install.sh"
    path.write_bytes(client.get("/install").content)
    assert subprocess.run(["sh", "-n", path]).returncode == 0
    ran = subprocess.run(["sh", path], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "token" in ran.stderr or "root" in ran.stderr


def test_other_ways_to_install_are_offered_with_their_sums(packages, settings):
    settings.PUBLIC_URL = "https://watch.example"
    for name in (f"sentinella_{wire.VERSION}_amd64.deb", f"sentinella-{wire.VERSION}-1.x86_64.rpm"):
        (packages / name).write_bytes(b"a package")
    ways = dict(install.by_hand("snt_token"))
    assert set(ways) == {"pip", "apt", "dnf"}
    for offer in install.offers():
        assert any(offer.sha256 in text and offer.name in text for text in ways.values())


def test_the_wheel_is_one_that_pip_installs_and_the_agent_runs_from(tmp_path):
    wheel = packed.wheel()
    path = tmp_path / wheel.name
    path.write_bytes(wheel.content)
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", target, path], check=True)
    ran = subprocess.run(
        [sys.executable, "-m", "agent_client.cli", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "enrol" in ran.stdout
    names = zipfile.ZipFile(io.BytesIO(wheel.content)).namelist()
    assert not [name for name in names if "__pycache__" in name or "test" in name]


def test_the_same_sources_make_the_same_wheel():
    first = packed.wheel()
    packed.wheel.cache_clear()
    assert packed.wheel().content == first.content
