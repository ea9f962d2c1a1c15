"""How long certificates are still good: of TLS services, and in files."""

from __future__ import annotations

import glob
import time

from agent_client.certificates import Seen, of_file, of_host
from agent_client.collector import Collector, Points

_EVERY = 900.0


class Certificate(Collector):
    """Seconds to the end of each certificate of `[certificates]`, looked at each quarter hour.

    `trusted` says whether a client would take it: name, chain and time are right. Of a file with a
    chain, the certificate that ends first counts.
    """

    name = "certificate"

    def __init__(self, config: object) -> None:
        super().__init__(config)  # type: ignore[arg-type]
        self._seen: dict[str, Seen] = {}
        self._looked_at: float | None = None

    def collect(self, points: Points) -> None:
        packs = self.config.packs
        if not packs.certificate_hosts and not packs.certificate_files:
            points.nothing("no host and no file is named in [certificates]")
        now = time.monotonic()
        if self._looked_at is None or now - self._looked_at >= _EVERY:
            self._looked_at = now
            seen = {host: of_host(host, self.config.ca_file) for host in packs.certificate_hosts}
            for pattern in packs.certificate_files:
                paths = sorted(glob.glob(pattern))
                seen.update((path, of_file(path)) for path in paths)
                if not paths:
                    seen[pattern] = Seen(reason="no such file")
            self._seen = seen
        at = time.time()
        for source, one in self._seen.items():
            if one.reason:
                points.warn(f"{source}: {one.reason}")
            points.add(
                "certificate",
                {
                    "seconds_left": (
                        None if one.expires_at is None else round(one.expires_at - at)
                    ),
                    "trusted": one.trusted,
                },
                {"source": source},
            )
