"""PostgreSQL and Valkey of our own: they start anywhere, keep what is committed, and go with us."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis

from sentinel_site.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedValkey
from sentinel_site.embedded import postgres as postgres_module

RUN = [sys.executable, "-m", "sentinel_site.embedded", "run", "--fast"]


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def works_below(directory: Path) -> list[int]:
    """Processes whose working directory lies there, as that of both servers does."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(directory):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found


def query(url: str, sql: str) -> list[tuple]:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A data directory as after the first start; tests work on copies."""
    directory = tmp_path_factory.mktemp("made")
    server = EmbeddedPostgres(directory, fast=True)
    server.start()
    server.stop()
    return directory


@pytest.fixture
def postgres(made, tmp_path) -> Iterator[EmbeddedPostgres]:
    shutil.copytree(made / "postgres", tmp_path / "postgres")
    server = EmbeddedPostgres(tmp_path)
    yield server
    server.stop("immediate")


def test_the_product_is_no_superuser_and_owns_its_database(postgres):
    postgres.start()
    assert query(
        postgres.url, "SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user"
    ) == [(False, True)]
    query(postgres.url, "CREATE EXTENSION pg_trgm")
    assert query(postgres.url, "SHOW fsync") == [("on",)]


def test_both_servers_listen_on_loopback_only_and_ask_for_a_password(postgres, tmp_path):
    valkey = EmbeddedValkey(tmp_path)
    postgres.start()
    valkey.start()
    try:
        for server in (postgres, valkey):
            listening = [
                connection.laddr.ip
                for connection in psutil.Process(server.process.pid).net_connections()
                if connection.status == psutil.CONN_LISTEN
            ]
            assert listening == ["127.0.0.1"]
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(host="127.0.0.1", port=postgres.port, user="sentinella")
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=valkey.port).ping()
        assert redis.Redis.from_url(valkey.url).ping()
    finally:
        valkey.stop()


def test_passwords_are_for_the_owner_only(made):
    kept = made / "postgres" / "passwords.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert not (made / "postgres" / "superuser-password").exists()


def test_what_was_committed_survives_a_kill(postgres):
    postgres.start()
    query(postgres.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    postgres.process.send_signal(signal.SIGKILL)
    postgres.process.wait()
    assert eventually(lambda: not postgres.processes())
    postgres.start()
    assert query(postgres.url, "SELECT answer FROM kept") == [(42,)]


def test_a_second_server_on_the_same_data_is_refused(postgres, tmp_path):
    postgres.start()
    with pytest.raises(EmbeddedError, match=f"pid {postgres.process.pid}.* already"):
        EmbeddedPostgres(tmp_path).start()
    assert query(postgres.url, "SELECT 1") == [(1,)]


def test_a_lock_file_that_names_a_strangers_process_is_no_hindrance(postgres):
    lock = postgres.data / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n{postgres.data}\n1\n5432\n\n127.0.0.1\n\nready\n")
    postgres.start()
    assert query(postgres.url, "SELECT 1") == [(1,)]


def test_data_of_another_version_is_named_and_left_alone(postgres):
    (postgres.data / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedError, match="was made by PostgreSQL 17"):
        postgres.start()
    assert (postgres.data / "base").exists()


def test_a_start_that_died_half_way_through_its_first_time_is_made_good(tmp_path):
    (tmp_path / "postgres" / "data.new" / "base").mkdir(parents=True)
    server = EmbeddedPostgres(tmp_path, fast=True)
    server.start()
    assert query(server.url, "SELECT 1") == [(1,)]
    server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user to become")
def test_root_without_user_namespaces_runs_it_as_nobody(monkeypatch):
    def forbidden() -> None:
        raise PermissionError

    monkeypatch.setattr("sentinel_site.embedded.process.enter_user_namespace", forbidden)
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    server = EmbeddedPostgres(directory, fast=True)
    try:
        server.start()
        assert server.disguise.user == "nobody"
        assert psutil.Process(server.process.pid).username() == "nobody"
        assert query(server.url, "SELECT 1") == [(1,)]
    finally:
        server.stop("immediate")
        shutil.rmtree(directory)


def test_without_any_way_to_run_it_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "chown", lambda *_: None)
    monkeypatch.setattr(postgres_module, "_works", lambda *_: False)
    monkeypatch.setattr(shutil, "copytree", lambda *_, **__: None)
    with pytest.raises(EmbeddedError, match="set DATABASE_URL"):
        EmbeddedPostgres(tmp_path).start()


@pytest.mark.parametrize("status", [0, 7])
def test_run_tells_the_command_its_servers_and_ends_as_it_does(status):
    program = (
        "import os, psycopg2, redis, sys;"
        "psycopg2.connect(os.environ['DATABASE_URL']);"
        "redis.Redis.from_url(os.environ['REDIS_URL']).ping();"
        f"print(os.environ['STATE_DIR']); sys.exit({status})"
    )
    ended = subprocess.run([*RUN, "--", sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert ended.returncode == status
    directory = Path(ended.stdout.decode().strip())
    assert not directory.exists()
    assert works_below(directory) == []


def test_run_names_a_command_that_does_not_exist():
    ended = subprocess.run([*RUN, "--", "no-such-command"], stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    assert "no-such-command: No such file" in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_run_that_is_ended(tmp_path, number):
    program = "import signal; print(flush=True); signal.pause()"
    command = [*RUN, "--state-dir", str(tmp_path), "--", sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0) as run:
        assert run.stdout is not None
        run.stdout.readline()
        child = psutil.Process(run.pid).children()
        assert works_below(tmp_path)
        if number == signal.SIGINT:  # as a terminal does
            os.killpg(run.pid, number)
        else:
            run.send_signal(number)
        run.wait(60)
    assert run.returncode != 0
    assert eventually(lambda: not works_below(tmp_path))
    assert eventually(lambda: not any(process.is_running() for process in child))


def test_what_a_killed_run_left_on_disk_goes_with_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    abandoned = tmp_path / "sentinella-run-abandoned"
    abandoned.mkdir()
    (abandoned / "lock").touch()
    subprocess.run([*RUN, "--", "true"], check=True)
    assert list(tmp_path.iterdir()) == []
