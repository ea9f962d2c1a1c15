"""Databases, users, endpoints: what makes a cloud of installed packages. Runs inside, once."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.openstack import settings
from tests.openstack.settings import DATABASES, ENDPOINTS, KEYSTONE, PASSWORD, REGION

if False:  # for type checkers: host imports this module only when it prepares
    from tests.openstack.host import Services


def prepare(services: Services) -> None:
    """Configure everything and make every database, as an operator does by the install guide."""
    settings.write()
    say("MariaDB")
    _make_users_folders()
    services.start("mariadb")
    _databases()
    say("RabbitMQ")
    services.start("rabbitmq-server")
    for words in (f"add_user openstack {PASSWORD}", "set_permissions openstack .* .* .*",
                  "set_user_tags openstack administrator"):  # fmt: skip
        run("rabbitmqctl", "--quiet", *words.split())
    services.start("memcached")
    say("keystone")
    run_as("keystone", "keystone-manage db_sync")
    for words in ("fernet_setup", "credential_setup"):
        run("keystone-manage", words, "--keystone-user", "keystone", "--keystone-group", "keystone")
    run(
        "keystone-manage", "bootstrap", "--bootstrap-password", PASSWORD,
        "--bootstrap-region-id", REGION,
        *(word for kind in ("admin", "internal", "public")
          for word in (f"--bootstrap-{kind}-url", KEYSTONE)),
    )  # fmt: skip
    services.start("keystone")
    _catalogue()
    for user, words in (
        ("glance", "glance-manage db_sync"),
        ("glance", "glance-manage db_load_metadefs"),
        ("placement", "placement-manage db sync"),
        ("nova", "nova-manage api_db sync"),
        ("nova", "nova-manage cell_v2 map_cell0"),
        ("nova", "nova-manage db sync"),
        ("nova", "nova-manage cell_v2 create_cell --name cell1"),
        ("neutron", "neutron-db-manage --config-file /etc/neutron/neutron.conf "
                    "--config-file /etc/neutron/plugins/ml2/ml2_conf.ini upgrade head"),
        ("cinder", "cinder-manage db sync"),
        ("heat", "heat-manage db_sync"),
    ):  # fmt: skip
        say(words)
        run_as(user, words)


def _make_users_folders() -> None:
    for user, folder in (("glance", "/var/lib/glance/images"), ("mysql", "/var/lib/mysql")):
        who = pwd.getpwnam(user)
        Path(folder).mkdir(parents=True, exist_ok=True)
        os.chown(folder, who.pw_uid, who.pw_gid)
    if not Path("/var/lib/mysql/mysql").exists():
        run("mariadb-install-db", "--user=mysql", "--skip-test-db")


def _databases() -> None:
    lines = []
    for name in DATABASES:
        user = name.split("_")[0]
        lines.append(f"create database {name} character set utf8mb3")
        for host in ("127.0.0.1", "localhost"):
            lines.append(f"grant all on {name}.* to '{user}'@'{host}' identified by '{PASSWORD}'")
    lines.append(f"grant process, replication client on *.* to 'sentinella'@'127.0.0.1' "
                 f"identified by '{PASSWORD}'")  # fmt: skip
    run("mariadb", input=";\n".join(lines) + ";\n")


def _catalogue() -> None:
    cloud = Cloud()
    domain = "default"
    project = cloud.post("/projects", project={"name": "service", "domain_id": domain})["project"]
    roles = {one["name"]: one["id"] for one in cloud.get("/roles")["roles"]}
    own = cloud.get("/projects?name=admin")["projects"][0]["id"]
    for name in (*ENDPOINTS, "watcher"):
        user = cloud.post("/users", user={"name": name, "password": PASSWORD, "domain_id": domain})[
            "user"
        ]["id"]
        if name == "watcher":
            cloud.call("PUT", f"/projects/{own}/users/{user}/roles/{roles['reader']}")
            continue
        cloud.call("PUT", f"/projects/{project['id']}/users/{user}/roles/{roles['admin']}")
        kind, service_name, url = ENDPOINTS[name]
        service = cloud.post("/services", service={"type": kind, "name": service_name})["service"]
        for interface in ("public", "internal", "admin"):
            cloud.post("/endpoints", endpoint={
                "service_id": service["id"], "interface": interface, "region": REGION, "url": url,
            })  # fmt: skip
    heat = cloud.post("/domains", domain={"name": "heat"})["domain"]["id"]
    admin = cloud.post(
        "/users", user={"name": "heat_domain_admin", "password": PASSWORD, "domain_id": heat}
    )["user"]["id"]
    cloud.call("PUT", f"/domains/{heat}/users/{admin}/roles/{roles['admin']}")
    for name in ("heat_stack_owner", "heat_stack_user"):
        cloud.post("/roles", role={"name": name})


class Cloud:
    """The cloud's APIs with the administrator's token, for setting up and for waiting."""

    def __init__(self) -> None:
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        user = {"name": "admin", "domain": {"id": "default"}, "password": PASSWORD}
        identity = {"methods": ["password"], "password": {"user": user}}
        asked = {"auth": {"scope": scope, "identity": identity}}
        request = urllib.request.Request(
            f"{KEYSTONE}/auth/tokens", json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            self.token = answer.headers["X-Subject-Token"]
            self.project = json.load(answer)["token"]["project"]["id"]

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def post(self, path: str, **body: Any) -> Any:
        return self.call("POST", path, body)

    def call(self, method: str, path: str, body: Any = None, version: str = "") -> Any:
        url = path if path.startswith("http") else KEYSTONE + path
        headers = {"X-Auth-Token": self.token, "Content-Type": "application/json"}
        if version:
            headers["OpenStack-API-Version"] = version
        request = urllib.request.Request(
            url, None if body is None else json.dumps(body).encode(), headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:500]
            raise RuntimeError(f"{method} {url}: {error.code} {said}") from None
        return json.loads(text) if text else None


def populate() -> None:
    """Some of everything, so that states and numbers are not all nought. Runs inside."""
    cloud = Cloud()
    network, compute = "http://127.0.0.1:9696/v2.0", "http://127.0.0.1:8774/v2.1"
    volumes = f"http://127.0.0.1:8776/v3/{cloud.project}"
    net = _network(cloud, {"name": "inside"}, {"cidr": "10.1.0.0/24"})
    flat = {"provider:network_type": "flat", "provider:physical_network": "physnet1"}
    out = _network(
        cloud,
        {"name": "outside", "router:external": True, **flat},
        {"cidr": "203.0.113.0/24", "enable_dhcp": False},
    )
    router = {"name": "way-out", "external_gateway_info": {"network_id": out["network_id"]}}
    router_id = cloud.post(f"{network}/routers", router=router)["router"]["id"]
    interface = {"subnet_id": net["id"]}
    cloud.call("PUT", f"{network}/routers/{router_id}/add_router_interface", interface)
    cloud.post(f"{network}/floatingips", floatingip={"floating_network_id": out["network_id"]})
    image = cloud.post(
        "http://127.0.0.1:9292/v2/images", name="tiny", disk_format="raw", container_format="bare"
    )["id"]
    request = urllib.request.Request(
        f"http://127.0.0.1:9292/v2/images/{image}/file", bytes(1024 * 1024),
        {"X-Auth-Token": cloud.token, "Content-Type": "application/octet-stream"}, method="PUT",
    )  # fmt: skip
    urllib.request.urlopen(request, timeout=60).close()
    flavor = cloud.post(f"{compute}/flavors", flavor={
        "name": "tiny", "ram": 64, "vcpus": 1, "disk": 1})["flavor"]["id"]  # fmt: skip
    servers = []
    for name in ("web-1", "web-2"):
        made = cloud.post(f"{compute}/servers", server={
            "name": name, "imageRef": image, "flavorRef": flavor,
            "networks": [{"uuid": net["network_id"]}]})  # fmt: skip
        servers.append(f"{compute}/servers/{made['server']['id']}")
    volume = cloud.post(f"{volumes}/volumes", volume={"size": 1, "name": "data"})["volume"]["id"]
    for url in servers:
        wait_for(url, lambda url=url: cloud.get(url)["server"]["status"] == "ACTIVE")
    cloud.post(f"{servers[1]}/action", **{"os-stop": None})
    wait_for("web-2 off", lambda: cloud.get(servers[1])["server"]["status"] == "SHUTOFF")
    wait_for(
        "the volume",
        lambda: cloud.get(f"{volumes}/volumes/{volume}")["volume"]["status"] == "available",
    )


def _network(cloud: Cloud, network: dict[str, Any], subnet: dict[str, Any]) -> Any:
    """A network with one subnet, which is returned."""
    base = "http://127.0.0.1:9696/v2.0"
    made = cloud.post(f"{base}/networks", network=network)["network"]["id"]
    subnet = {"network_id": made, "ip_version": 4, **subnet}
    return cloud.post(f"{base}/subnets", subnet=subnet)["subnet"]


def wait_until_all_up() -> None:
    """Until every service that the APIs know says that it is up."""
    cloud = Cloud()

    def all_up() -> bool:
        compute = cloud.get("http://127.0.0.1:8774/v2.1/os-services")["services"]
        agents = cloud.get("http://127.0.0.1:9696/v2.0/agents")["agents"]
        volume = cloud.get(f"http://127.0.0.1:8776/v3/{cloud.project}/os-services")["services"]
        engines = cloud.get(f"http://127.0.0.1:8004/v1/{cloud.project}/services")["services"]
        hypervisors = cloud.get("http://127.0.0.1:8774/v2.1/os-hypervisors")["hypervisors"]
        return (
            len(compute) >= 3 and all(one["state"] == "up" for one in compute + volume)
            and len(agents) >= 4 and all(one["alive"] for one in agents)
            and len(volume) >= 2 and len(engines) >= 1 and len(hypervisors) >= 1
            and all(one["status"] == "up" for one in engines)
        )  # fmt: skip

    wait_for("every service to be up", all_up, 180)


def wait_for(what: str, condition: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    said = ""
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (RuntimeError, OSError) as error:
            said = str(error)
        time.sleep(1)
    raise RuntimeError(f"waited {seconds} s in vain for {what} {said}")


def say(what: str) -> None:
    sys.stderr.write(f"  {what}\n")


def run(*words: str, input: str | None = None) -> None:
    subprocess.run(words, check=True, input=input, text=True, stdout=subprocess.DEVNULL)


def run_as(user: str, line: str) -> None:
    who = pwd.getpwnam(user)
    done = subprocess.run(
        line.split(), user=who.pw_uid, group=who.pw_gid, extra_groups=[], cwd=who.pw_dir,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": who.pw_dir, "LANG": "C.UTF-8"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{line}: {done.returncode}\n{done.stdout[-3000:]}")
