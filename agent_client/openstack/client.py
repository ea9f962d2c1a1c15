"""One way to ask a cloud: by its catalogue, within a budget of calls, never waiting for long."""

from __future__ import annotations

import time
from typing import Any, Iterator, Mapping, Sequence
from urllib.parse import urljoin, urlsplit

#: Seconds that one call may take: a cloud without its message broker answers some of them never.
TIMEOUT = 10.0
_PAGE = 500
_MOST_PAGES = 40

#: Service types of a catalogue, the newest name first.
TYPES = {
    "compute": ("compute",),
    "placement": ("placement",),
    "network": ("network",),
    "volume": ("block-storage", "volumev3", "volume"),
    "orchestration": ("orchestration",),
    "image": ("image",),
    "identity": ("identity",),
}


class Failure(Exception):
    """A question without an answer. `status` is HTTP's, 0 where there was no answer at all."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class NoRight(Failure):
    """The role of our user may not ask this: no fault of the cloud."""


class NotThere(Failure):
    """The catalogue has no such service."""


class OutOfBudget(Failure):
    """The calls of this round are spent; the next round goes on."""


class Cloud:
    """A cloud's APIs with one user's token. `budget` is how many calls this round may make."""

    def __init__(
        self, session: Any, *, region: str = "", interface: str = "public", budget: int = 60
    ) -> None:
        self._session = session
        self.region = region
        self.interface = interface or "public"
        self.left = budget
        #: Certificates of authorities to trust, beside the usual ones when empty.
        self.ca_file = ""
        self.calls = 0
        self.catalogue: list[dict[str, Any]] = []
        self.project = ""
        self.token = ""

    def log_in(self) -> None:
        """A fresh token, for a kept one hides that keystone is down. Raises Failure."""
        self._spend()
        try:
            access = self._session.auth.get_access(self._session)
        except Exception as error:  # keystoneauth's, requests' and plugins' own
            status = getattr(error, "http_status", 0) or 0
            raise Failure(_plainly(error), status) from None
        self.catalogue = list(access.service_catalog.catalog or [])
        self.project = access.project_id or ""
        self.token = access.auth_token

    def endpoints(self) -> Iterator[Mapping[str, str]]:
        """Every endpoint of the catalogue in our region: name, type, interface, region, url."""
        for service in self.catalogue:
            for endpoint in service.get("endpoints", []):
                region = endpoint.get("region_id") or endpoint.get("region") or ""
                if self.region and region != self.region:
                    continue
                yield {
                    "service": service.get("name") or service["type"],
                    "type": service["type"],
                    "interface": endpoint.get("interface", ""),
                    "region": region,
                    "url": endpoint["url"],
                }

    def base(self, service: str, version: str) -> str:
        """The address of a service's API, with its version and without our project behind it.

        Raises NotThere.
        """
        found: dict[str, str] = {}
        for endpoint in self.endpoints():
            if endpoint["interface"] == self.interface:
                found.setdefault(endpoint["type"], endpoint["url"])
        url = next((found[kind] for kind in TYPES[service] if kind in found), None)
        if url is None:
            raise NotThere(f"the catalogue has no {self.interface} endpoint of {service}")
        parts = urlsplit(url)
        segments = [one for one in parts.path.split("/") if one]
        kept: list[str] = []
        for segment in segments:
            if segment[:1] == "v" and segment[1:2].isdigit():
                version = segment if version else ""
                break
            kept.append(segment)
        if version:
            kept.append(version)
        return f"{parts.scheme}://{parts.netloc}/" + "".join(f"{one}/" for one in kept)

    def get(
        self, service: str, version: str, path: str, microversion: str = "", **query: Any
    ) -> Any:
        """The body of one answer. Raises Failure, NoRight, NotThere, OutOfBudget."""
        return self._ask(urljoin(self.base(service, version), path), service, microversion, query)

    def pages(
        self,
        service: str,
        version: str,
        path: str,
        key: str,
        microversion: str = "",
        **query: Any,
    ) -> list[dict[str, Any]]:
        """All items of a list that may come in pages. Raises as `get`."""
        items: list[dict[str, Any]] = []
        base = self.base(service, version)
        url, asked = urljoin(base, path), {"limit": str(_PAGE), **query}
        for _ in range(_MOST_PAGES):
            body = self._ask(url, service, microversion, asked)
            items += body[key]
            links = body.get(f"{key}_links") or body.get("links") or []
            following = _next(links) or body.get("next")
            if not following or not body[key]:
                return items
            # The host of a link is the one that the API takes itself for: only its path counts.
            parts = urlsplit(following)
            here = urlsplit(base)
            url = f"{here.scheme}://{here.netloc}{parts.path}?{parts.query}"
            asked = {}
        raise Failure(f"more than {_MOST_PAGES * _PAGE} items; not counted")

    def _ask(self, url: str, service: str, microversion: str, query: Mapping[str, Any]) -> Any:
        self._spend()
        headers = {"Accept": "application/json"}
        if microversion:
            kind = "volume" if service == "volume" else service
            headers["OpenStack-API-Version"] = f"{kind} {microversion}"
        try:
            answer = self._session.get(
                url,
                params=dict(query) or None,
                headers=headers,
                timeout=TIMEOUT,
                raise_exc=False,
                connect_retries=0,
                status_code_retries=0,
                redirect=2,
            )
        except Exception as error:  # whatever stands between us and an answer
            raise Failure(_plainly(error)) from None
        if answer.status_code == 403:
            raise NoRight("our role has no right to this", 403)
        if answer.status_code >= 300:
            raise Failure(_said(answer), answer.status_code)
        try:
            return answer.json()
        except ValueError:
            raise Failure("the answer is no JSON", answer.status_code) from None

    def _spend(self) -> None:
        if self.left <= 0:
            raise OutOfBudget("the calls of this round are spent")
        self.left -= 1
        self.calls += 1


def _next(links: Sequence[Mapping[str, str]]) -> str | None:
    return next((link["href"] for link in links if link.get("rel") == "next"), None)


def _said(answer: Any) -> str:
    """What an error's body says, in one line."""
    try:
        body = answer.json()
    except ValueError:
        return f"HTTP {answer.status_code}"
    value = body
    for _ in range(3):
        if isinstance(value, Mapping):
            value = value.get("message") or value.get("title") or next(iter(value.values()), "")
    text = " ".join(str(value).split())[:200]
    return f"HTTP {answer.status_code} {text}".strip()


def _plainly(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "imed out" in text or "imeout" in type(error).__name__:
        return f"no answer within {TIMEOUT:g} s"
    return text[:300]


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self._began, 4)


def with_version(auth_url: str) -> str:
    """The identity URL with /v3, also where the original's configuration says /v2.0 or nothing."""
    parts = urlsplit(auth_url.rstrip("/"))
    kept = [one for one in parts.path.split("/") if one and one not in ("v2.0", "v3")]
    return f"{parts.scheme}://{parts.netloc}/" + "/".join([*kept, "v3"])


def identity(auth_url: str) -> str:
    """What names the cloud for all agents: its identity URL without version and slash."""
    url = with_version(auth_url) if auth_url else ""
    return url[: -len("/v3")] if url.endswith("/v3") else url
