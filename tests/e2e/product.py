"""The running product as these tests see it: from outside, by its pages, its API and its doors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import urllib3

from agent_client import wire
from sentinel_site.embedded.process import free_port
from tests.site.test_up import Instance, eventually

REPOSITORY = Path(__file__).resolve().parents[2]
PASSWORD = "a long walk along the shore"
TICK = 5.0  # seconds; TICK_SECONDS as shipped
START = 180.0  # seconds for the first start, as promised for `make run`
REACT = 1.0  # seconds that may pass between an evaluation and the row in an open page

_http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=5, read=20))
T = TypeVar("T")


def until(look: Callable[[], T], seconds: float, what: str) -> T:
    """What `look` returns as soon as it is true; fails with `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what} (last seen: {found!r})")
        time.sleep(0.05)


class Product:
    """One `manage.py up` with mail going to a sink; children can be killed and are awaited."""

    def __init__(self, state_dir: Path, mail_port: int, *options: str) -> None:
        self.instance = Instance(state_dir, free_port(), *options)
        self.instance.environ = {
            "ENVIRONMENT": "local",
            "EMAIL_URL": f"smtp://127.0.0.1:{mail_port}",
            "TICK_SECONDS": str(TICK),
            "OUTGOING_PRIVATE_NETWORKS": "127.0.0.0/8",
        }

    def start(self) -> None:
        """Start it and wait for its address; fails with what it showed."""
        self.instance.start()
        process = self.instance.process
        eventually(lambda: "is live at" in self.instance.shown or process.poll() is not None, START)
        assert "is live at" in self.instance.shown, self.instance.shown

    def stop(self) -> None:
        if self.instance.process.poll() is None:
            self.instance.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.instance.port}"

    @property
    def state_dir(self) -> Path:
        return self.instance.state_dir

    @property
    def signin_link(self) -> str:
        """The one that was printed at the start."""
        return self.instance.shown.split("Sign in, once: ")[1].split()[0]

    def manage(self, *arguments: str, said: str = "") -> str:
        """What a command in a second shell prints."""
        environ = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "REDIS_URL")}
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=REPOSITORY,
            env={**environ, **self.instance.environ, "STATE_DIR": str(self.state_dir)},
            input=said,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def bootstrap(self, slug: str) -> Organization:
        email = f"alice@{slug}.example"
        said = self.manage(
            *("bootstrap", "--slug", slug, "--name", slug.capitalize(), "--email", email),
            "--password-stdin",
            said=PASSWORD,
        )
        return Organization(self, email, json.loads(said.splitlines()[-1]))

    def kill(self, name: str) -> None:
        """`kill -9` of one child; returns when another one has taken its place."""
        before = self.instance.pids[name]
        os.kill(before, 9)
        until(
            lambda: self.instance.pids.get(name, before) != before, 40, f"{name} was started again"
        )

    def is_whole(self) -> bool:
        """Every child runs and every component answers."""
        try:
            answer = _http.request("GET", f"{self.url}/readyz")
        except urllib3.exceptions.HTTPError:
            return False
        return bool(answer.status == 200 and answer.json()["state"] == "up")


class Organization:
    """A tenant, as its owner's scripts see it."""

    def __init__(self, product: Product, email: str, bootstrapped: dict[str, Any]) -> None:
        self.product = product
        self.email = email
        self.slug: str = bootstrapped["organization"]
        self.url: str = bootstrapped["url"]
        self.ingest_key: str = bootstrapped["keys"]["ingest"]
        self.admin_key: str = bootstrapped["keys"]["admin"]

    def get(self, path: str, **query: Any) -> Any:
        return self._ask("GET", f"{path}?{urlencode(query)}")

    def post(self, path: str, **body: Any) -> Any:
        return self._ask("POST", path, body)

    def patch(self, path: str, **body: Any) -> Any:
        return self._ask("PATCH", path, body)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = _http.request(
            method,
            f"{self.url}api/v1/{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.admin_key}"},
        )
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.data[:500]!r}"
        return answer.json() if answer.data else None

    def sends(self, reports: list[dict[str, Any]]) -> None:
        """Have these reports stored, as agents of its hosts would."""
        answer = _http.request(
            "POST",
            f"{self.product.url}{wire.REPORTS_PATH}",
            json=reports,
            headers={"Authorization": f"Bearer {self.ingest_key}"},
        )
        assert answer.status == 200, f"{answer.status} {answer.data[:500]!r}"
        assert not answer.json()["rejected"], answer.json()

    def server(self, host: str) -> dict[str, Any]:
        """The server of this name, waited for."""

        def look() -> Any:
            return next(
                (s for s in self.get("servers/", host=host)["results"] if s["host"] == host), None
            )

        found: dict[str, Any] = until(look, 20, f"server {host} is listed")
        return found

    def rule(self, name: str, **changes: Any) -> dict[str, Any]:
        """A rule `cpu percent > 60` that judges the newest value at once."""
        made: dict[str, Any] = self.post(
            "rules/",
            **{
                "name": name,
                "kind": "metric",
                "measurement": "cpu",
                "field": "percent",
                "aggregation": "last",
                "window": 20,
                "hold": 0,
                "comparison": ">",
                "thresholds": {"error": 60},
                **changes,
            },
        )
        return made

    def alerts(self, title: str, **query: Any) -> list[dict[str, Any]]:
        found = self.get("alerts/", **query)["results"]
        return [alert for alert in found if alert["title"] == title]

    def values(
        self, server: int, start: float, end: float, agg: str = "last"
    ) -> dict[float, float]:
        """The server's `cpu percent` by whole seconds: the last value of each, or their number."""
        drawn = self.get(
            f"servers/{server}/series/",
            measurement="cpu",
            field="percent",
            start=start,
            end=end,
            points=2000,
            agg=agg,
        )
        return {
            at: value
            for line in drawn["series"]
            for at, value in zip(line["times"], line["values"], strict=True)
            if value is not None
        }

    def stored(self, server: int, start: float, end: float) -> float:
        """How many values of `cpu percent` there are; one that was stored twice counts twice."""
        return sum(self.values(server, start, end, agg="count").values())


class Machine:
    """A server of ours whose values are exactly what a test says.

    As the real agent does, it keeps a report until it is acknowledged and sends it again, under the
    same number, after whatever went wrong.
    """

    def __init__(self, organization: Organization, host: str, interval: float = 600.0) -> None:
        self.organization = organization
        self.host = host
        self.interval = interval
        self.agent = str(uuid.uuid4())
        self.epoch = uuid.uuid4().hex
        self.key = organization.ingest_key
        self.percent = 5.0
        self.acknowledged: list[float] = []  # times of the reports that were answered with 2xx
        self._unsent: list[wire.Report] = []
        self._sequence = 0

    @property
    def made(self) -> int:
        """How many reports there ever were, acknowledged or not."""
        return self._sequence

    def report(
        self,
        events: tuple[tuple[str, str], ...] = (),
        services: tuple[wire.ServiceState, ...] = (),
        specs: dict[str, Any] | None = None,
        at: float | None = None,
    ) -> float:
        """One report with the present value and (level, message) pairs; returns its time."""
        self._sequence += 1
        at = round(time.time() if at is None else at, 3)
        self._unsent.append(
            wire.Report(
                agent=self.agent,
                epoch=self.epoch,
                sequence=self._sequence,
                host=self.host,
                at=at,
                interval=self.interval,
                points=self._points(),
                events=[
                    wire.LogEvent(
                        f"{self._sequence}-{number}", at, level, message, service="nova-compute"
                    )
                    for number, (level, message) in enumerate(events)
                ],
                services=list(services),
                specs=specs,
            )
        )
        return at

    def _points(self) -> list[wire.Point]:
        return [
            wire.Point("cpu", {"percent": self.percent}),
            wire.Point("memory", {"total": 8e9, "used": 2e9, "percent": 25.0}),
            wire.Point("load", {"load1": 0.5, "load5": 0.4, "load15": 0.3}),
            wire.Point(
                "disk",
                {"total": 1e11, "used": 4e10, "percent": 40.0},
                {"mount": "/", "device": "vda"},
            ),
        ]

    def send(self) -> bool:
        """Try to get rid of what is unsent; whether nothing is left."""
        while self._unsent:
            batch = self._unsent[: wire.MAX_REPORTS]
            try:
                answer = _http.request(
                    "POST",
                    f"{self.organization.product.url}{wire.REPORTS_PATH}",
                    json=[report.to_json() for report in batch],
                    headers={"Authorization": f"Bearer {self.key}"},
                )
            except urllib3.exceptions.HTTPError:
                return False
            if answer.status >= 300:
                assert answer.status >= 500, f"{answer.status} {answer.data[:500]!r}"
                return False
            assert not answer.json()["rejected"], answer.json()
            self.acknowledged += [report.at for report in batch]
            del self._unsent[: len(batch)]
        return True

    def says(self, percent: float, **more: Any) -> float:
        """Report this value and return once it is acknowledged."""
        self.percent = percent
        at = self.report(**more)
        until(self.send, 20, f"the report of {self.host} is acknowledged")
        return at

    @contextmanager
    def reporting(self, every: float = 1.0) -> Iterator[None]:
        """Report the present value again and again until the block ends, then send the rest."""
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(every):
                self.report()
                self.send()

        thread = threading.Thread(target=work, name=f"reports of {self.host}")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)
        until(self.send, 30, f"every report of {self.host} is acknowledged")


def enrol(product: Product, token: str, agent: str, host: str) -> str:
    """Turn a one-time token into a server's own key, as the installer does."""
    answer = _http.request(
        "POST",
        f"{product.url}{wire.ENROL_PATH}",
        json={"agent": agent, "host": host},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert answer.status == 201, answer.data[:500]
    key: str = answer.json()["key"]
    return key


__all__ = ["Instance", "Machine", "Organization", "Product", "enrol", "eventually", "until"]
