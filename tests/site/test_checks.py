"""An installation is told what is wrong with its settings, and what to do; right ones are quiet."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest
from django.conf import settings
from django.core.checks import Error, Warning

from metrics.checks import role_is_held_by_row_level_security
from sentinel_site import checks, environment
from sentinel_site.embedded import EmbeddedPostgres
from sentinel_site.environment import Environment

ROOT = Path(settings.BASE_DIR)
EXAMPLE = ROOT / "deploy" / "production.env.example"
SECRET = "x7Q-vN2kLr_Zt8WmYc4Jp0sHbGdUeAfKiOqXyRjTnVwC"


def example() -> dict[str, str]:
    """The variables of the example as systemd, Compose and a shell would read them, filled in."""
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and line[0] != "#"]
    values = dict(line.split("=", 1) for line in lines)
    return {
        name: value.replace("change-me", f"{SECRET}{name}")[:200] for name, value in values.items()
    }


def manage(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`manage.py` with these variables and no others of ours."""
    ours = {name.upper() for name in Environment.model_fields}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def ids(found: list) -> list[str]:
    return [message.id for message in found]


def says_what_to_do(message: Error | Warning) -> bool:
    return bool(message.hint and re.match(r"(Set|Let|Put|Use|Check) ", message.hint))


# -- production ---------------------------------------------------------------


def test_the_shipped_production_settings_give_no_warning(tmp_path):
    ours = {"DATABASE_URL": settings.ENV.database_url, "STATE_DIR": str(tmp_path)}
    ran = manage(
        *("check", "--deploy", "--database", "default", "--fail-level", "WARNING"),
        **{**example(), **ours},
    )
    assert ran.returncode == 0, ran.stderr
    assert "no issues (0 silenced)" in ran.stdout + ran.stderr
    assert "WARNING" not in ran.stderr


def test_the_example_as_it_is_shipped_does_not_pass_for_filled_in(tmp_path):
    unfilled = {**example(), "SECRET_KEY": "change-me", "STATE_DIR": str(tmp_path)}
    ran = manage("check", "--deploy", "--fail-level", "WARNING", **unfilled)
    assert ran.returncode == 1
    assert "SECRET_KEY" in ran.stderr


def test_a_key_pepper_left_as_in_the_example_is_an_error(settings):
    settings.ENV = settings.ENV.model_copy(update={"environment": "production"})
    settings.SECRET_KEY, settings.KEY_PEPPER = SECRET, "change-me"
    assert ids(checks.secrets_are_set()) == ["sentinella.E002"]


def test_every_variable_of_the_example_is_one_that_is_read():
    read = {name.upper() for name in Environment.model_fields}
    compose = set(re.findall(r"\$\{(\w+)", (ROOT / "deploy" / "compose.yaml").read_text()))
    named = set(re.findall(r"^#?([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE))
    assert named - read <= compose
    assert compose <= named


# -- each check ---------------------------------------------------------------


def test_production_needs_secrets_of_its_own(settings):
    settings.ENV = settings.ENV.model_copy(update={"environment": "production"})
    settings.SECRET_KEY = settings.KEY_PEPPER = "insecure-and-known-to-all"
    found = checks.secrets_are_set()
    assert ids(found) == ["sentinella.E001", "sentinella.E002"]
    assert all("token_urlsafe" in message.hint for message in found)
    settings.SECRET_KEY = settings.KEY_PEPPER = SECRET
    assert checks.secrets_are_set() == []


def test_one_machine_may_keep_the_known_secrets(settings):
    settings.SECRET_KEY = settings.KEY_PEPPER = "insecure-and-known-to-all"
    assert checks.secrets_are_set() == []


@pytest.mark.parametrize(
    ("url", "hosts", "is_wrong"),
    [
        ("https://watch.example.org", ["watch.example.org"], False),
        ("https://watch.example.org:8443", [".example.org"], False),
        ("http://[::1]:8000", ["[::1]"], False),
        ("https://watch.example.org", ["localhost"], True),
        ("http://[2001:db8::1]", ["localhost"], True),
    ],
)
def test_the_public_address_is_a_host_that_is_answered_for(settings, url, hosts, is_wrong):
    settings.PUBLIC_URL, settings.ALLOWED_HOSTS = url, hosts
    found = checks.public_host_is_allowed()
    assert ids(found) == ["sentinella.E003"] * is_wrong
    assert all(message.hint.endswith(",localhost") for message in found)


@pytest.mark.parametrize(
    ("name", "url", "id"),
    [
        ("REDIS_URL", "redis://127.0.0.1:6379/0", None),
        ("REDIS_URL", "rediss://:pass%2Fword@cache.example.org", None),
        ("REDIS_URL", "unix:///run/valkey.sock?db=1", None),
        ("REDIS_URL", "cache.example.org:6379", "sentinella.E004"),
        ("REDIS_URL", "http://cache.example.org:6379", "sentinella.E004"),
        ("REDIS_URL", "redis://:pass/word@cache.example.org:6379/0", "sentinella.E004"),
        ("REDIS_URL", "redis:///0", "sentinella.E004"),
        ("REDIS_URL", "redis://cache.example.org/first", "sentinella.E004"),
        ("REDIS_URL", "unix://", "sentinella.E004"),
        ("CELERY_BROKER_URL", "amqp://guest:guest@127.0.0.1:5672//", None),
        ("CELERY_BROKER_URL", "amqp://one.example.org;amqp://two.example.org", None),
        ("CELERY_BROKER_URL", "amqp://one.example.org;two.example.org", "sentinella.E005"),
        ("CELERY_BROKER_URL", "kafka://one.example.org", "sentinella.E005"),
    ],
)
def test_a_slip_in_an_address_is_named(settings, name, url, id):
    settings.REDIS_URL = settings.CELERY_BROKER_URL = "redis://127.0.0.1:6379/0"
    setattr(settings, name, url)
    found = checks.addresses_are_understood()
    assert ids(found) == ([id] if id else [])
    for message in found:
        assert message.msg.startswith(f"{name} ")
        assert says_what_to_do(message)
        assert "pass" not in message.msg


@pytest.mark.parametrize(
    ("check", "wrong", "right", "id"),
    [
        (
            checks.mail_leaves_the_machine,
            {"EMAIL_BACKEND": "anymail.backends.console.EmailBackend"},
            {"EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend"},
            "sentinella.W001",
        ),
        (checks.links_are_https, {"HTTPS": False}, {"HTTPS": True}, "sentinella.W002"),
        (
            checks.proxy_is_trusted,
            {"HTTPS": True, "SECURE_PROXY_SSL_HEADER": None},
            {"HTTPS": True, "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https")},
            "sentinella.W003",
        ),
        (
            checks.environment_is_production,
            {"ENV": Environment(environment="local")},
            {"ENV": Environment(environment="production")},
            "sentinella.W004",
        ),
    ],
)
def test_a_deployment_is_warned(settings, check, wrong, right, id):
    for name, value in wrong.items():
        setattr(settings, name, value)
    found = check()
    assert ids(found) == [id]
    assert says_what_to_do(found[0])
    for name, value in right.items():
        setattr(settings, name, value)
    assert check() == []


# -- the database -------------------------------------------------------------


@pytest.mark.django_db
def test_the_role_of_the_tests_is_one_that_production_could_have():
    assert checks.database_answers(databases=["default"]) == []
    assert role_is_held_by_row_level_security(databases=["default"]) == []


def test_without_being_asked_for_no_database_is_touched():
    assert checks.database_answers(databases=None) == []


def test_a_database_that_is_away_is_an_error_without_a_traceback(tmp_path):
    away = f"postgres://sentinella:{SECRET}@127.0.0.1:1/sentinella"
    ran = manage("check", "--database", "default", DATABASE_URL=away, STATE_DIR=str(tmp_path))
    assert ran.returncode == 1
    assert "sentinella.E006" in ran.stderr
    assert "DATABASE_URL" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert SECRET not in ran.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = EmbeddedPostgres(tmp_path_factory.mktemp("checks"), fast=True)
    server.start()
    yield server
    server.stop("immediate")


def test_a_superuser_is_refused_since_no_policy_binds_it(server, tmp_path):
    ran = manage(
        *("check", "--database", "default"),
        DATABASE_URL=server.superuser_url,
        STATE_DIR=str(tmp_path),
    )
    assert ran.returncode == 1
    assert "metrics.E001" in ran.stderr
    assert "BYPASSRLS" in ran.stderr


def test_a_role_that_may_not_make_schemas_is_refused(server, tmp_path):
    connection = psycopg2.connect(server.superuser_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    connection.close()
    url = re.sub(r"//[^@]*@", "//guest:guest@", server.url)
    ran = manage("check", "--database", "default", DATABASE_URL=url, STATE_DIR=str(tmp_path))
    assert ran.returncode == 1
    assert "sentinella.E007" in ran.stderr
    assert "OWNER TO guest" in ran.stderr


# -- values that can't be used ------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "word"),
    [
        ("ENVIRONMENT", "prod", "'production'"),
        ("DEBUG", "perhaps", "boolean"),
        ("TICK_SECONDS", "soon", "number"),
        ("TICK_SECONDS", "0", "greater than 0"),
        ("RETENTION_RAW_DAYS", "0", "greater than 0"),
        ("TRUSTED_PROXIES", "-1", "greater than or equal to 0"),
        ("LOG_LEVEL", "loud", "'WARNING'"),
        ("LOG_FORMAT", "xml", "'json'"),
        ("OUTGOING_PRIVATE_NETWORKS", "10.0.0.0/8,inside", "192.168.7.0/24"),
        ("OUTGOING_PRIVATE_NETWORKS", "10.0.0.1/8", "host bits"),
        ("ANYMAIL", "key=1", "JSON"),
        ("EMAIL_URL", "smtp.example.org:25", "smtp+tls:"),
        ("PUBLIC_URL", "watch.example.org", "https:"),
        ("PUBLIC_URL", "https://", "host"),
        ("DATABASE_URL", "mysql://root@127.0.0.1/x", "postgres:"),
        ("DATABASE_URL", "postgres://a:se/cret@127.0.0.1/x", "%XX"),
        ("DATABASE_URL", "postgres://a@127.0.0.1", "database"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_on_one_line(
    monkeypatch, capsys, tmp_path, variable, value, word
):
    first, *rest = refused(monkeypatch, capsys, STATE_DIR=str(tmp_path), **{variable: value})
    assert first.startswith(f"error: {variable}: ")
    assert word in first
    assert "se/cret" not in first
    assert rest == ["Each variable and what it means: docs/configuration.md"]


def test_all_wrong_values_are_told_at_once(monkeypatch, capsys, tmp_path):
    lines = refused(monkeypatch, capsys, STATE_DIR=str(tmp_path), DEBUG="perhaps", LOG_LEVEL="loud")
    assert [line.split(": ")[1] for line in lines[:2]] == ["DEBUG", "LOG_LEVEL"]


def test_a_command_with_a_wrong_value_ends_without_a_traceback(tmp_path):
    ran = manage("check", STATE_DIR=str(tmp_path), DEBUG="perhaps")
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: DEBUG: ")
    assert "Traceback" not in ran.stderr


def test_the_level_of_the_log_may_be_in_small_letters(monkeypatch, tmp_path):
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.setenv("LOG_LEVEL", "debug")
    assert environment.read().log_level == "DEBUG"


def refused(monkeypatch, capsys, **variables: str) -> list[str]:
    """What is said of these variables before the process ends."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        environment.read()
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()
