"""The configuration: what it means, and one plain line where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_client.config import ConfigError, agent_id, load, with_enrolment, write_private


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "agent.ini"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_a_whole_configuration_is_read(tmp_path: Path) -> None:
    config = load(
        write(
            tmp_path,
            "[agent]\nserver = https://s.example/sub/\nkey = snt_a_b\ninterval = 2m\n"
            "[spool]\nmax_size = 1G\nmax_age = 12h\n"
            "[service nova-api]\nproject = nova\nprocess = nova-api, nova-api-wsgi\n"
            "[log nova]\npath = /var/log/nova/*.log\n  /var/log/n/%s.log\nlevel = info\ntail=1M\n",
        ),
        {},
    )
    assert config.server == "https://s.example/sub"
    assert config.interval == 120
    assert (config.spool_max_bytes, config.spool_max_age) == (1024**3, 43_200)
    assert config.services[0].processes == ("nova-api", "nova-api-wsgi")
    assert [source.pattern for source in config.logs] == [
        "/var/log/nova/*.log",
        "/var/log/n/%s.log",
    ]
    assert (config.logs[0].level, config.logs[0].tail) == ("info", 1024**2)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "[agent]\nserver = http://file\nkey = a\ninterval = 60\n")
    environ = {
        "SENTINELLA_SERVER": "http://env",
        "SENTINELLA_KEY": "b",
        "SENTINELLA_STATE_DIR": "/state",
        "SENTINELLA_INTERVAL": "10",
    }
    config = load(path, environ)
    assert (config.server, config.key, config.state_dir, config.interval) == (
        "http://env", "b", "/state", 10,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[agent]\nserver = ftp://x\n", "no http"),
        ("[agent]\ninterval = soon\n", "interval"),
        ("[agent]\ninterval = 0\n", "between"),
        ("[agent]\nintervall = 3\n", "intervall: no such option"),
        ("[agnt]\n", "is no section"),
        ("[log nova]\npath = relative.log\n", "must start with /"),
        ("[log nova]\n", "needs a path"),
        ("[log nova]\npath = /x\nlevel = loud\n", "level is one of"),
        ("[service x]\ncmdline = (\n", "cmdline"),
        ("[spool]\nmax_size = big\n", "max_size"),
        ("no section at all\n", "no section headers"),
        ("[agent]\nkey_file = /nowhere/key\n", "key_file"),
    ],
)
def test_a_mistake_is_named_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        load(path, {})
    assert said in str(raised.value)
    assert path in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_key_that_others_may_read_is_warned_of(tmp_path: Path) -> None:
    path = write(tmp_path, "[agent]\nkey = snt_a_b\n")
    assert load(path, {}).warnings == ()
    Path(path).chmod(0o644)
    assert "chmod 600" in load(path, {}).warnings[0]


def test_the_key_is_never_part_of_what_is_printed(tmp_path: Path) -> None:
    assert "snt_a_b" not in repr(load(write(tmp_path, "[agent]\nkey = snt_a_b\n"), {}))


def test_the_agents_id_is_made_once(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = agent_id(str(state))
    assert agent_id(str(state)) == first
    assert (state / "agent-id").stat().st_mode & 0o777 == 0o600


def test_enrolling_again_keeps_comments_and_other_settings(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "# ours\n[agent]\nkey = old\ninterval = 30\n\n[service nova-api]\n# key = not this\n",
    )
    write_private(path, with_enrolment(path, "http://new", "snt_new", None))
    text = Path(path).read_text()
    assert "# ours" in text
    assert "# key = not this" in text
    config = load(path, {})
    assert (config.server, config.key, config.interval) == ("http://new", "snt_new", 30)
    assert config.services[0].name == "nova-api"


def test_the_documented_configuration_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "agent.md").read_text()
    config = load(write(tmp_path, page.split("```ini\n")[1].split("```")[0]), {})
    assert config.interval == 60
    assert config.services[0].processes == ("nova-compute",)
    assert config.logs[0].pattern == "/var/log/nova/*.log"
    assert config.exclude_interfaces == ("lo", "tap*", "qvo*")
