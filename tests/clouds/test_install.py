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
from clouds import install
from tests.alerts.builders import make_server


def test_the_line_holds_a_token_that_works_once(client, alice):
    client.force_login(alice)
    page = client.post("/o/acme/servers/add/", headers={"HX-Request": "true"}).content.decode()
    token = page.split("sudo sh -s -- ")[1].split("<")[0].split('"')[0].strip()
    assert keys.enrol(token, uuid4(), "nova-1", datetime.now(UTC))
    with pytest.raises(keys.UnknownKey):
        keys.enrol(token, uuid4(), "nova-1", datetime.now(UTC))


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


def test_the_script_checks_what_it_fetches(client, db, settings):
    settings.PUBLIC_URL = "https://watch.example"
    script = client.get("/install").content.decode()
    wheel = install.wheel()
    assert f"SHA256='{wheel.sha256}'" in script
    assert f"https://watch.example/install/{wheel.name}" in script
    body = client.get(f"/install/{wheel.name}")
    assert hashlib.sha256(body.content).hexdigest() == wheel.sha256
    assert client.get("/install/other.whl").status_code == 404


def test_the_script_is_sound_shell_and_refuses_without_a_token(client, db, tmp_path):
    path = tmp_path / "install.sh"
    path.write_bytes(client.get("/install").content)
    assert subprocess.run(["sh", "-n", path]).returncode == 0
    ran = subprocess.run(["sh", path], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "token" in ran.stderr


def test_the_wheel_is_one_that_pip_installs_and_the_agent_runs_from(tmp_path):
    wheel = install.wheel()
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
    first = install.wheel()
    install.wheel.cache_clear()
    assert install.wheel() == first
