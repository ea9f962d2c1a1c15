"""The original agent's files mean to this agent what they meant to the original."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_client.config import load
from agent_client.config_changes import with_enrolment, with_plugins
from agent_client.private_files import write_private

#: As the original's own `init` writes it (WIRE.md, section 7), every feature in use.
CONF: dict[str, Any] = {
    "account_key": "acct-key-0001",
    "api_url": "https://api.example.org",
    "log_file": "/var/log/sentinella/sentinella.log",
    "log_format": "",
    "log_level": "WARN",
    "openstack_credentials": {
        "auth_url": "http://controller:5000/v2.0", "password": "s3cret", "project": "admin",
        "user": "monitor",
    },
    "openstack_services": {
        "neutron-l3-agent": {
            "log": "/var/log/neutron/l3-agent.log", "process": "neutron-l3-agent",
        },
        "nova-api": {"log": "/var/log/nova/nova-api.log", "process": "nova-api"},
        "nova-cert": False,
    },
    "plugins": {
        "sentinella.metrics": ["get_server_usage_stats"],
        "sentinella.openstack_logs": ["get_openstack_events"],
        "sentinella.test": ["get_stats"],
    },
    "plugins_conf_dir": "${tourbillon_conf_dir}/conf.d",
    "proxy": {"host": "proxy.example.org", "password": "p:w@d", "port": "3128", "user": "me"},
}  # fmt: skip


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A directory as the original leaves it, one file of conf.d with comments as its template."""
    path = tmp_path / "sentinella.conf"
    path.write_text(json.dumps(CONF, indent=4, sort_keys=True))
    path.chmod(0o600)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "metrics.conf").write_text('{"frequency": 60, "disks": []}')
    (tmp_path / "conf.d" / "openstack_logs.conf").write_text(
        json.dumps({"parser": {"regex": r"(?P<timex>\S+) (?P<level>\S+)"}, "frecuency": 1})
    )
    (tmp_path / "conf.d" / "test.conf").write_text('{"plugin_key": "0f1d", "frequency": 60}')
    (tmp_path / "conf.d" / "commented.conf").write_text('{ "plugin_key": "x" } // the key\n')
    return path


def test_it_is_read_unchanged(conf: Path) -> None:
    before = conf.read_bytes()
    config = load(str(conf), {})
    assert conf.read_bytes() == before
    assert (config.server, config.key) == ("https://api.example.org", "acct-key-0001")
    assert config.proxy == "http://me:p%3Aw%40d@proxy.example.org:3128"
    assert (config.log_file, config.log_level) == ("/var/log/sentinella/sentinella.log", "WARNING")
    assert config.log_format == "%(message)s"
    assert config.interval == 60


def test_services_bring_their_process_and_log_and_false_means_not_monitored(conf: Path) -> None:
    config = load(str(conf), {})
    assert {(one.name, one.project, one.processes) for one in config.services} == {
        ("nova-api", "nova", ("nova-api",)),
        ("neutron-l3-agent", "neutron", ("neutron-l3-agent",)),
    }
    assert {(one.pattern, one.service, one.level) for one in config.logs} == {
        ("/var/log/nova/nova-api.log", "nova-api", "warning"),
        ("/var/log/neutron/l3-agent.log", "neutron-l3-agent", "warning"),
    }
    assert config.unwatched == {"nova-cert"}


def test_credentials_switch_the_apis_on_and_an_empty_one_off(conf: Path) -> None:
    access = load(str(conf), {}).openstack
    assert (access.enabled, access.user, access.password) == (True, "monitor", "s3cret")
    assert (access.project, access.auth_url) == ("admin", "http://controller:5000/v2.0")
    empty = dict.fromkeys(CONF["openstack_credentials"], "")
    conf.write_text(json.dumps({**CONF, "openstack_credentials": empty}))
    assert not load(str(conf), {}).openstack.enabled
    conf.write_text(json.dumps({k: v for k, v in CONF.items() if k != "openstack_credentials"}))
    assert not load(str(conf), {}).openstack.enabled, "the original died of a missing key"


def test_conf_d_is_read_and_a_file_that_is_no_json_is_told_and_left_out(conf: Path) -> None:
    config = load(str(conf), {})
    assert set(config.plugin_settings) == {"metrics", "openstack_logs", "test"}
    assert config.plugin_settings["test"]["plugin_key"] == "0f1d"
    (warning,) = config.warnings
    assert "commented.conf is left out: no valid JSON" in warning


def test_the_stock_modules_are_part_of_the_agent_and_other_plugins_run(conf: Path) -> None:
    assert load(str(conf), {}).plugins == {"sentinella.test": ("get_stats",)}


def test_the_minimal_file_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "sentinella.conf"
    path.write_text(
        '{"api_url": "http://api", "account_key": "KEY", "log_file": "/tmp/x", "log_level": "INFO",'
        ' "log_format": "", "plugins_conf_dir": "/nowhere/conf.d", "openstack_services": {},'
        ' "proxy": {"host": ""},'
        ' "openstack_credentials": {"user": "", "password": "", "project": "", "auth_url": ""}}'
    )
    path.chmod(0o600)
    config = load(str(path), {})
    assert (config.server, config.key, config.proxy) == ("http://api", "KEY", "")
    assert config.warnings == ()


def test_a_proxy_serves_https_alone_as_it_did(conf: Path) -> None:
    conf.write_text(json.dumps({**CONF, "api_url": "http://api.example.org"}))
    assert load(str(conf), {}).proxy == ""


def test_enrolling_and_enabling_write_it_back_as_the_original_would(conf: Path) -> None:
    write_private(str(conf), with_enrolment(str(conf), "http://new", "snt_new", None))
    write_private(str(conf), with_plugins(str(conf), {"sentinella.docker": ["docker_stats"]}))
    said = json.loads(conf.read_text())
    assert (said["api_url"], said["account_key"]) == ("http://new", "snt_new")
    assert set(said["plugins"]) == {
        "sentinella.metrics", "sentinella.openstack_logs", "sentinella.docker",
    }  # fmt: skip
    assert said["openstack_services"] == CONF["openstack_services"]
    assert conf.read_text() == json.dumps(said, indent=4, sort_keys=True) + "\n"
    assert load(str(conf), {}).plugins == {"sentinella.docker": ("docker_stats",)}
