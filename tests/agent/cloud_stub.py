"""A cloud's APIs as small as they can be: what each path answers can be set."""

from __future__ import annotations

import http.server
import json
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

SECRET = "correct-horse-7"
STAMP = "2026-11-22T10:45:21.000000"


class CloudStub:
    """Answers of one address for all services, told apart by the first part of the path."""

    def __init__(self) -> None:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.serve(self)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                outer.serve(self)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.requests: list[tuple[str, dict[str, list[str]], dict[str, str]]] = []
        #: Path -> a body, or a status, or both.
        self.answers: dict[str, Any] = self._full()
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def serve(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        query = parse_qs(parts.query)
        self.requests.append((parts.path, query, dict(handler.headers)))
        answer = self.answers.get(parts.path, 404)
        if callable(answer):
            answer = answer(query)
        status, body = answer if isinstance(answer, tuple) else (answer, None)
        if not isinstance(status, int):
            status, body = 200, answer
        raw = json.dumps(body or {"error": {"message": "so it is set"}}).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(raw)))
        if parts.path.endswith("/auth/tokens"):
            handler.send_header("X-Subject-Token", "a-token-of-the-cloud")
        handler.end_headers()
        handler.wfile.write(raw)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def paths(self) -> list[str]:
        return [path for path, _query, _headers in self.requests]

    def headers_of(self, path: str) -> dict[str, str]:
        return next(headers for seen, _query, headers in self.requests if seen == path)

    def _full(self) -> dict[str, Any]:
        def endpoint(kind: str, path: str) -> dict[str, Any]:
            return {
                "type": kind, "name": kind, "id": kind,
                "endpoints": [{
                    "interface": "public", "region": "one", "region_id": "one", "id": kind,
                    "url": f"{self.url}/{path}",
                }],
            }  # fmt: skip

        token = {
            "methods": ["password"], "expires_at": "2099-01-01T00:00:00.000000Z",
            "issued_at": STAMP + "Z", "user": {"id": "u", "name": "u", "domain": {"id": "d"}},
            "project": {"id": "p1", "name": "ops", "domain": {"id": "d", "name": "d"}},
            "roles": [],
            "catalog": [
                endpoint("identity", "identity/v3"),
                endpoint("compute", "compute/v2.1/p1"),
                endpoint("network", "network"),
                endpoint("volumev3", "volume/v3/p1"),
                endpoint("image", "image"),
                endpoint("placement", "placement"),
                endpoint("orchestration", "heat/v1/p1"),
            ],
        }  # fmt: skip
        up = {"zone": "nova", "status": "enabled", "state": "up", "updated_at": STAMP,
              "disabled_reason": None}  # fmt: skip
        provider = "/placement/resource_providers/a1"
        quota = {"cores": {"limit": 20, "in_use": 5}, "ram": {"limit": -1, "in_use": 1}}
        return {
            "/identity/v3/auth/tokens": (201, {"token": token}),
            **{f"/{name}/": {"versions": []} for name in
               ("identity", "compute", "network", "volume", "image", "placement", "heat")},
            "/compute/v2.1/os-services": {"services": [
                {"binary": "nova-compute", "host": "c1", **up},
                {"binary": "nova-compute", "host": "c2", **up},
            ]},
            "/compute/v2.1/os-hypervisors/detail": {"hypervisors": [{
                "hypervisor_hostname": "c1.example.org", "state": "up", "status": "enabled",
                "hypervisor_type": "QEMU", "service": {"host": "c1"}, "vcpus": 8, "vcpus_used": 3,
                "memory_mb": 1024, "memory_mb_used": 512, "local_gb": 10, "local_gb_used": 1,
                "running_vms": 2, "current_workload": 0,
            }]},
            "/compute/v2.1/os-availability-zone/detail": {"availabilityZoneInfo": [
                {"zoneName": "nova", "zoneState": {"available": True}, "hosts": {"c1": {}}},
            ]},
            "/compute/v2.1/servers/detail": {"servers": [
                {"id": "1", "status": "ACTIVE"}, {"id": "2", "status": "ERROR"},
                {"id": "3", "status": "ACTIVE"},
            ]},
            "/network/v2.0/agents": {"agents": [
                {"binary": "neutron-l3-agent", "host": "n1", "alive": True,
                 "admin_state_up": True, "heartbeat_timestamp": "2026-11-22 10:45:06"},
            ]},
            "/network/v2.0/networks": {"networks": [{"id": "n", "status": "ACTIVE"}]},
            "/network/v2.0/routers": {"routers": []},
            "/network/v2.0/floatingips": {"floatingips": [{"id": "f", "status": "DOWN"}]},
            "/network/v2.0/network-ip-availabilities": {"network_ip_availabilities": [
                {"network_id": "n", "network_name": "inside", "total_ips": 200, "used_ips": 50},
                {"network_id": "m", "network_name": "six", "total_ips": 2**64, "used_ips": 1},
            ]},
            "/volume/v3/p1/os-services": {"services": [
                {"binary": "cinder-volume", "host": "s1@ceph", **up},
            ]},
            "/volume/v3/p1/scheduler-stats/get_pools": {"pools": [
                {"name": "s1@ceph#ceph", "capabilities": {
                    "total_capacity_gb": 100, "free_capacity_gb": 25.0,
                    "provisioned_capacity_gb": "unknown", "volume_backend_name": "ceph"}},
                {"name": "s1@all#all", "capabilities": {"total_capacity_gb": "infinite"}},
            ]},
            "/volume/v3/p1/volumes/detail": {"volumes": [
                {"id": "1", "status": "available", "size": 2}, {"id": "2", "status": "error",
                 "size": 1}]},
            "/heat/v1/p1/services": {"services": [
                {"binary": "heat-engine", "host": "h1", "status": "down", "updated_at": "2026-01"
                 "-01T00:00:00.000000"},
                {"binary": "heat-engine", "host": "h1", "status": "up", "updated_at": STAMP},
            ]},
            "/image/v2/images": {"images": [{"id": "i", "status": "active", "size": 1000}]},
            "/placement/resource_providers": {"resource_providers": [
                {"uuid": "a1", "name": "c1.example.org"}]},
            f"{provider}/inventories": {"inventories": {"MEMORY_MB": {
                "total": 1000, "reserved": 200, "allocation_ratio": 1.5}}},
            f"{provider}/usages": {"usages": {"MEMORY_MB": 600}},
            "/identity/v3/projects": {"projects": [{"id": "p1", "name": "ops"}]},
            "/compute/v2.1/os-quota-sets/p1/detail": {"quota_set": {"id": "p1", **quota}},
            "/volume/v3/p1/os-quota-sets/p1": {"quota_set": {
                "id": "p1", "gigabytes": {"limit": 10, "in_use": 4}}},
            "/network/v2.0/quotas/p1/details": {"quota": {"port": {"limit": 0, "used": 0}}},
        }  # fmt: skip
