"""The configuration: what it means, and one plain line where it is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent_client import config as configuration
from agent_client.agent import sole_use
from agent_client.config import ConfigError, Drop, load
from agent_client.config_changes import with_enrolment, with_plugins
from agent_client.identity import agent_id
from agent_client.private_files import write_private


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_a_whole_configuration_is_read(tmp_path: Path) -> None:
    config = load(
        write(
            tmp_path,
            """
            [agent]
            server = "https://s.example/sub/"
            key = "snt_a_b"
            interval = "2m"
            remote = true
            [spool]
            max_size = "1G"
            max_age = "12h"
            [services]
            nova-cert = false
            [services.nova-api]
            project = "nova"
            process = ["nova-api", "nova-api-wsgi"]
            [levels]
            default = "error"
            nova-compute = "info"
            [logs.nova]
            path = ["/var/log/nova/*.log", "/var/log/n/%s.log"]
            level = "info"
            tail = "1M"
            [logs.nova-compute]
            path = "/var/log/nova-compute.log"
            [collectors]
            swap = false
            [masking]
            emails = true
            patterns = ['ticket-\\d+']
            """,
        ),
        {},
    )
    assert config.server == "https://s.example/sub"
    assert config.interval == 120
    assert config.remote
    assert (config.spool_max_bytes, config.spool_max_age) == (1024**3, 43_200)
    assert config.services[0].processes == ("nova-api", "nova-api-wsgi")
    assert config.unwatched == {"nova-cert"}
    assert [source.pattern for source in config.logs] == [
        "/var/log/nova/*.log", "/var/log/n/%s.log", "/var/log/nova-compute.log",
    ]  # fmt: skip
    assert [source.level for source in config.logs] == ["info", "info", "info"]
    assert config.logs[0].tail == 1024**2
    assert (config.level_of("nova-compute"), config.level_of("glance-api")) == ("info", "error")
    assert config.collectors == {"swap": False}
    assert config.masking.emails
    assert config.masking.patterns[0].search("ticket-17")


def test_what_plugins_are_told_lies_beside_the_configuration_unless_said_otherwise(
    tmp_path: Path,
) -> None:
    for place in ("conf.d", "other"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "docker.conf").write_text(f'{{"plugin_key": "{place}"}}')
    assert load(write(tmp_path, ""), {}).settings_of("docker") == {
        "docker": {"plugin_key": "conf.d"}
    }
    said = f'[agent]\nplugins_dir = "{tmp_path}/other"\n'
    assert load(write(tmp_path, said), {}).settings_of("docker") == {
        "docker": {"plugin_key": "other"}
    }


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[agent]\nserver = "http://file"\nkey = "a"\ninterval = 60\n')
    environ = {
        "SENTINELLA_SERVER": "http://env",
        "SENTINELLA_KEY": "b",
        "SENTINELLA_STATE_DIR": "/state",
        "SENTINELLA_INTERVAL": "10",
        "SENTINELLA_REMOTE": "yes",
        "SENTINELLA_OPENSTACK_CLOUD": "ours",
    }
    config = load(path, environ)
    assert (config.server, config.key, config.state_dir, config.interval, config.remote) == (
        "http://env", "b", "/state", 10, True,
    )  # fmt: skip
    assert (config.openstack.cloud, config.openstack.enabled) == ("ours", True)


def test_the_environment_names_the_file_too(tmp_path: Path) -> None:
    path = write(tmp_path, "[agent]\ninterval = 17\n")
    assert load(None, {"SENTINELLA_CONFIG": path}).interval == 17
    with pytest.raises(ConfigError, match="no such file"):
        load(None, {"SENTINELLA_CONFIG": path + ".not"})


def test_the_originals_file_is_taken_where_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "sentinella.conf", tmp_path / "agent.toml"
    monkeypatch.setattr(configuration, "ORIGINAL_PATH", str(old))
    monkeypatch.setattr(configuration, "DEFAULT_PATH", str(new))
    assert load(None, {}).path == ""
    old.write_text('{"api_url": "http://old"}')
    assert load(None, {}).server == "http://old"
    new.write_text('[agent]\nserver = "http://new"\n')
    assert load(None, {}).server == "http://new"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[agent]\nserver = "ftp://x"\n', "no http"),
        ('[agent]\ninterval = "soon"\n', "interval"),
        ("[agent]\ninterval = 0\n", "between"),
        ("[agent]\ninterval = true\n", "needs text"),
        ("[agent]\nintervall = 3\n", "intervall: no such option"),
        ("[agent]\nremote = 'maybe'\n", "true or false"),
        ("[agent]\nproxy = 'socks5://x'\n", "is written http://"),
        ("[agnt]\n", "is no section"),
        ("agent = 3\n", "must be a section"),
        ('[logs.nova]\npath = "relative.log"\n', "must start with /"),
        ("[logs.nova]\n", "path: is needed"),
        ('[logs.nova]\npath = "/x"\nformat = "odd"\n', "format: is one of plain, json"),
        ('[logs.nova]\njournal = "nova"\nlimit = "many"\n', "limit: is a number of events"),
        ('[logs.nova]\npath = "/x"\nlevel = "loud"\n', "is one of"),
        ('[levels]\nnova = "loud"\n', "is one of"),
        ('[services.x]\ncmdline = "("\n', "no regular expression"),
        ("[services]\nx = 3\n", "must be a section"),
        ('[spool]\nmax_size = "big"\n', "max_size"),
        ("no section at all\n", "line 1"),
        ('[agent]\nkey_file = "/nowhere/key"\n', "key_file"),
        ("[[drop]]\n", "would drop all"),
        ("[[drop]]\ntags = 3\n", "is written {"),
        ("[openstack]\nenabled = true\n", "[openstack] needs"),
        ('[plugins]\n"../x" = ["f"]\n', "no name of a module"),
        ('[masking]\npatterns = ["("]\n', "no regular expression"),
        ('{"api_url": 3.5}', "api_url: is a text"),
        ('{"openstack_services": {"x": 3}}', "is an object or false"),
        ('{"api_url": ', "Expecting value"),
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
    path = write(tmp_path, '[agent]\nkey = "snt_a_b"\n')
    assert load(path, {}).warnings == ()
    Path(path).chmod(0o644)
    assert f"chmod 600 {path}" in load(path, {}).warnings[0]
    Path(path).write_text("[agent]\ninterval = 9\n")
    assert load(path, {}).warnings == (), "nothing secret is in it"


def test_secrets_come_from_files_that_only_their_owner_may_read(tmp_path: Path) -> None:
    for name, content in (("key", "snt_a_b\n"), ("cloud", "pass word\n"), ("proxy", "p@ss\n")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    path = write(
        tmp_path,
        f"""
        [agent]
        key_file = "{tmp_path}/key"
        proxy = "http://me@proxy:3128"
        proxy_password_file = "{tmp_path}/proxy"
        [openstack]
        auth_url = "http://keystone/v3"
        user = "reader"
        project = "admin"
        password_file = "{tmp_path}/cloud"
        """,
    )
    config = load(path, {})
    assert (config.key, config.openstack.password) == ("snt_a_b", "pass word")
    assert config.proxy == "http://me:p%40ss@proxy:3128"
    assert config.openstack.enabled
    assert config.warnings == ()
    (tmp_path / "cloud").chmod(0o604)
    assert f"chmod 600 {tmp_path}/cloud" in load(path, {}).warnings[0]


@pytest.mark.parametrize(
    "text",
    [
        '[agent]\nkey = "snt_a_b"', '[agent]\nproxy_password = "x"',
        '[agent]\nproxy = "http://user:word@proxy:3128"',
        '[openstack]\npassword = "x"', '[rabbitmq]\npassword = "x"',
    ],
)  # fmt: skip
def test_a_file_with_any_secret_that_others_may_read_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    path.chmod(0o644)
    assert f"chmod 600 {path}" in load(str(path), {}).warnings[0]


def test_no_secret_is_part_of_what_is_printed(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[agent]\nkey = "snt_a_b"\nproxy = "http://u:hidden@p:1"\n'
        '[openstack]\nauth_url = "http://k"\nuser = "u"\nproject = "p"\npassword = "concealed"\n',
    )
    shown = repr(load(path, {}))
    assert not [word for word in ("snt_a_b", "hidden", "concealed") if word in shown]


def test_the_agents_id_is_made_once(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = agent_id(str(state))
    assert agent_id(str(state)) == first
    assert (state / "agent-id").stat().st_mode & 0o777 == 0o600


def test_enrolling_again_keeps_comments_and_other_settings(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '# ours\n[agent]  # the agent itself\nkey = "old"\nkey_file = "/gone"\n'
        'exclude_interfaces = [\n  "lo",  # loopback\n  "key = x",\n]\ninterval = 30 # often\n\n'
        "[services.nova-api]\n# key = not this\n",
    )
    write_private(path, with_enrolment(path, "http://new", "snt_new", None))
    assert Path(path).read_text() == (
        '# ours\n[agent]  # the agent itself\nkey = "snt_new"\nserver = "http://new"\n'
        'exclude_interfaces = [\n  "lo",  # loopback\n  "key = x",\n]\ninterval = 30 # often\n\n'
        "[services.nova-api]\n# key = not this\n"
    )
    config = load(path, {})
    assert (config.server, config.key, config.interval) == ("http://new", "snt_new", 30)
    assert config.services[0].name == "nova-api"


@pytest.mark.parametrize("before", ["", "# nothing yet", "[spool]\nmax_age = 60", "\n\n"])
def test_enrolling_makes_the_section_that_is_missing(tmp_path: Path, before: str) -> None:
    path = write(tmp_path, before)
    write_private(path, with_enrolment(path, "http://new", "snt_new", "/état"))
    assert Path(path).read_text().startswith(before.rstrip("\n"))
    config = load(path, {})
    assert (config.server, config.key, config.state_dir) == ("http://new", "snt_new", "/état")


def test_a_form_that_cannot_be_changed_in_place_is_refused_rather_than_broken(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "agent = { interval = 30 }\n")
    with pytest.raises(ConfigError, match=r"below a line \[agent\]"):
        with_enrolment(path, "http://new", "snt_new", None)


def test_plugins_are_enabled_and_disabled_in_place(tmp_path: Path) -> None:
    path = write(tmp_path, '[agent]\ninterval = 9\n[plugins]\n"old.one" = ["f"]  # mine\n')
    Path(path).write_text(with_plugins(path, {"old.one": ("f",), "new_one": ("a", "b")}))
    assert load(path, {}).plugins == {"old.one": ("f",), "new_one": ("a", "b")}
    Path(path).write_text(with_plugins(path, {}))
    config = load(path, {})
    assert (config.plugins, config.interval) == ({}, 9)


def test_drop_rules_match_by_measurement_and_tag() -> None:
    rule = Drop("net*", {"interface": "tap*"})
    assert rule.matches("network", {"interface": "tap1"})
    assert not rule.matches("network", {"interface": "eth0"})
    assert not rule.matches("network", {})
    assert not rule.matches("disk", {"interface": "tap1"})


def test_the_documented_configuration_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "agent.md").read_text()
    (tmp_path / "proxy").write_text("x")
    (tmp_path / "proxy").chmod(0o600)
    text = page.split("```toml\n")[1].split("```")[0]
    config = load(write(tmp_path, text.replace("/etc/sentinella/proxy", f"{tmp_path}/proxy")), {})
    assert config.interval == 60
    assert config.services[0].processes == ("nova-compute",)
    assert config.unwatched == {"nova-novncproxy"}
    assert config.logs[0].pattern == "/var/log/nova/*.log"
    assert config.exclude_interfaces == ("lo", "tap*", "qvo*")
    assert config.drops[0].matches("network", {"interface": "tap4"})
    assert config.openstack.enabled
    assert config.warnings == ()


def test_a_log_may_be_a_journals_unit_or_a_container(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        '[logs.nova]\njournal = ["nova-compute", "nova-api"]\nlimit = 100\n'
        '[logs.glance]\ncontainer = "abcdef"\nformat = "json"\n'
    )
    sources = load(str(path), {}).logs
    assert [(source.kind, source.pattern) for source in sources] == [
        ("journal", "nova-compute"), ("journal", "nova-api"), ("container", "abcdef"),
    ]  # fmt: skip
    assert sources[0].limit == 100
    assert sources[2].format == "json"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own for others")
def test_what_root_configures_the_agents_user_can_read(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 1234)
    path = tmp_path / "agent.toml"
    write_private(str(path), "[agent]\n")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1234)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_that_somebody_laid_in_the_way_is_never_written_through(tmp_path: Path) -> None:
    theirs, path = tmp_path / "passwd", tmp_path / "discovery.json"
    theirs.write_text("root:x:0:0\n")
    theirs.chmod(0o644)
    (tmp_path / f"discovery.json.{os.getpid()}.new").symlink_to(theirs)
    write_private(str(path), "{}")
    assert theirs.read_text() == "root:x:0:0\n"
    assert theirs.stat().st_mode & 0o777 == 0o644
    assert path.read_text() == "{}"
    assert not path.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own for others")
def test_root_leaves_no_spool_in_the_directory_of_the_agents_user(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 1234)
    with pytest.raises(PermissionError, match="as that user"), sole_use(str(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []
