"""The configuration of every service: one worker each, everything on 127.0.0.1."""

from __future__ import annotations

import re
from pathlib import Path

HOST = "controller-1"
PASSWORD = "open-sesame-9"  # the cloud lives in a network namespace without a way out
REGION = "RegionOne"
KEYSTONE = "http://127.0.0.1:5000/v3"

#: user of keystone -> (service type, name, URL)
ENDPOINTS = {
    "glance": ("image", "glance", "http://127.0.0.1:9292"),
    "placement": ("placement", "placement", "http://127.0.0.1:8778"),
    "nova": ("compute", "nova", "http://127.0.0.1:8774/v2.1"),
    "neutron": ("network", "neutron", "http://127.0.0.1:9696"),
    "cinder": ("volumev3", "cinderv3", "http://127.0.0.1:8776/v3/%(tenant_id)s"),
    "heat": ("orchestration", "heat", "http://127.0.0.1:8004/v1/%(tenant_id)s"),
}
DATABASES = (
    "keystone", "glance", "placement", "nova_api", "nova", "nova_cell0", "neutron", "cinder",
    "heat",
)  # fmt: skip

_RABBIT = f"transport_url = rabbit://openstack:{PASSWORD}@127.0.0.1:5672/"


def _database(name: str, section: str = "database") -> str:
    user = name.split("_")[0]
    return (
        f"[{section}]\nconnection = mysql+pymysql://{user}:{PASSWORD}@127.0.0.1/{name}\n"
        "max_pool_size = 3\nmax_retries = -1\n"
    )


def _login(section: str, user: str) -> str:
    return (
        f"[{section}]\nauth_url = {KEYSTONE}\nwww_authenticate_uri = {KEYSTONE}\n"
        "memcached_servers = 127.0.0.1:11211\nauth_type = password\n"
        "project_domain_name = Default\nuser_domain_name = Default\nproject_name = service\n"
        f"username = {user}\npassword = {PASSWORD}\nregion_name = {REGION}\n"
    )


def _messages(name: str) -> str:
    # Notifications stay off: with them Debian 12's cinder cannot make a volume.
    return (
        f"[oslo_concurrency]\nlock_path = /run/lock/{name}\n"
        "[oslo_messaging_rabbit]\nheartbeat_in_pthread = false\n"
        "[oslo_messaging_notifications]\ndriver = noop\n"
    )


FILES = {
    "/etc/hosts": f"127.0.0.1 localhost {HOST}\n",
    "/etc/hostname": f"{HOST}\n",
    "/etc/mysql/mariadb.conf.d/99-openstack.cnf": (
        "[mariadbd]\nbind-address = 127.0.0.1\ninnodb_buffer_pool_size = 96M\n"
        "max_connections = 400\nlog_error = /var/log/mysql/error.log\nskip_name_resolve = ON\n"
        "innodb_flush_log_at_trx_commit = 2\n"
    ),
    "/etc/rabbitmq/rabbitmq.conf": (
        "listeners.tcp.1 = 127.0.0.1:5672\nmanagement.tcp.ip = 127.0.0.1\n"
        "prometheus.tcp.ip = 127.0.0.1\nlog.file.level = info\n"
    ),
    "/etc/rabbitmq/rabbitmq-env.conf": f"NODENAME=rabbit@{HOST}\n",
    "/etc/rabbitmq/enabled_plugins": "[rabbitmq_management,rabbitmq_prometheus].\n",
    "/etc/memcached.conf": "-m 64\n-p 11211\n-u memcache\n-l 127.0.0.1\n",
    "/etc/haproxy/haproxy.cfg": (
        "global\n  log /dev/log local0\n  user haproxy\n  group haproxy\n"
        "  stats socket /run/haproxy/admin.sock mode 660 level admin\n"
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
        "listen keystone\n  bind 127.0.0.1:15000\n  option httpchk GET /v3\n"
        "  server controller-1 127.0.0.1:5000 check inter 1s fall 2 rise 1\n"
    ),
    "/etc/keystone/keystone.conf": (
        "[DEFAULT]\nlog_dir = /var/log/keystone\n"
        + _database("keystone")
        + "[token]\nprovider = fernet\n[cache]\nenabled = true\n"
        "backend = dogpile.cache.memcached\nmemcache_servers = 127.0.0.1:11211\n"
        "[oslo_messaging_notifications]\ndriver = noop\n"
    ),
    "/etc/glance/glance-api.conf": (
        "[DEFAULT]\nbind_host = 127.0.0.1\nworkers = 1\nenabled_backends = disk:file\n"
        + _database("glance")
        + _login("keystone_authtoken", "glance")
        + "[paste_deploy]\nflavor = keystone\n[glance_store]\ndefault_backend = disk\n"
        "[disk]\nfilesystem_store_datadir = /var/lib/glance/images\n"
        "[oslo_messaging_notifications]\ndriver = noop\n[oslo_concurrency]\n"
        "lock_path = /run/lock/glance\n"
    ),
    "/etc/placement/placement.conf": (
        "[api]\nauth_strategy = keystone\n"
        + _database("placement", "placement_database")
        + _login("keystone_authtoken", "placement")
    ),
    "/etc/nova/nova.conf": (
        f"[DEFAULT]\n{_RABBIT}\nmy_ip = 127.0.0.1\nlog_dir = /var/log/nova\n"
        "state_path = /var/lib/nova\nvif_plugging_is_fatal = false\nvif_plugging_timeout = 0\n"
        "osapi_compute_listen = 127.0.0.1\n"
        + _database("nova_api", "api_database")
        + _database("nova")
        + _login("keystone_authtoken", "nova")
        + _login("placement", "placement")
        + _login("neutron", "neutron")
        + f"service_metadata_proxy = true\nmetadata_proxy_shared_secret = {PASSWORD}\n"
        + _login("service_user", "nova")
        + "send_service_user_token = true\n[glance]\napi_servers = http://127.0.0.1:9292\n"
        "[conductor]\nworkers = 1\n[scheduler]\nworkers = 1\n"
        "discover_hosts_in_cells_interval = 20\n"
        "[vnc]\nenabled = true\nnovncproxy_host = 127.0.0.1\nserver_listen = 127.0.0.1\n"
        + f"[cinder]\nos_region_name = {REGION}\n"
        + _messages("nova")
    ),
    "/etc/nova/nova-compute.conf": "[DEFAULT]\ncompute_driver = fake.FakeDriver\n",
    "/etc/neutron/neutron.conf": (
        f"[DEFAULT]\n{_RABBIT}\ncore_plugin = ml2\nservice_plugins = router\n"
        "log_dir = /var/log/neutron\nstate_path = /var/lib/neutron\nrpc_workers = 1\n"
        "rpc_state_report_workers = 0\nauth_strategy = keystone\n"
        "[agent]\nroot_helper = sudo /usr/bin/neutron-rootwrap /etc/neutron/rootwrap.conf\n"
        "[experimental]\nlinuxbridge = true\n"
        + _database("neutron")
        + _login("keystone_authtoken", "neutron")
        + _login("nova", "nova")
        + _messages("neutron")
    ),
    "/etc/neutron/plugins/ml2/ml2_conf.ini": (
        "[ml2]\ntype_drivers = flat,local\ntenant_network_types = local\n"
        "mechanism_drivers = linuxbridge\n[ml2_type_flat]\nflat_networks = physnet1\n"
    ),
    "/etc/neutron/plugins/ml2/linuxbridge_agent.ini": (
        "[linux_bridge]\nphysical_interface_mappings = physnet1:ext0\n"
        "[vxlan]\nenable_vxlan = false\n"
        "[securitygroup]\nenable_security_group = false\nfirewall_driver = noop\n"
    ),
    "/etc/neutron/dhcp_agent.ini": (
        "[DEFAULT]\ninterface_driver = linuxbridge\nenable_isolated_metadata = true\n"
    ),
    "/etc/neutron/l3_agent.ini": "[DEFAULT]\ninterface_driver = linuxbridge\n",
    "/etc/neutron/metadata_agent.ini": (
        "[DEFAULT]\nnova_metadata_host = 127.0.0.1\nmetadata_workers = 1\n"
        f"metadata_proxy_shared_secret = {PASSWORD}\n"
    ),
    "/etc/cinder/cinder.conf": (
        f"[DEFAULT]\n{_RABBIT}\nmy_ip = 127.0.0.1\nlog_dir = /var/log/cinder\n"
        "state_path = /var/lib/cinder\nenabled_backends = fake\nauth_strategy = keystone\n"
        "glance_api_servers = http://127.0.0.1:9292\nosapi_volume_listen = 127.0.0.1\n"
        "rootwrap_config = /etc/cinder/rootwrap.conf\n"
        "[fake]\nvolume_driver = cinder.tests.fake_driver.FakeLoggingVolumeDriver\n"
        "volume_backend_name = fake\n"
        + _database("cinder")
        + _login("keystone_authtoken", "cinder")
        + _messages("cinder")
    ),
    "/etc/heat/heat.conf": (
        f"[DEFAULT]\n{_RABBIT}\nnum_engine_workers = 1\nlog_dir = /var/log/heat\n"
        f"stack_domain_admin = heat_domain_admin\nstack_domain_admin_password = {PASSWORD}\n"
        "stack_user_domain_name = heat\nregion_name_for_services = RegionOne\n"
        + _database("heat")
        + _login("keystone_authtoken", "heat")
        + _login("trustee", "heat")
        + f"[clients_keystone]\nauth_uri = {KEYSTONE}\n"
        + _messages("heat")
    ),
    "/etc/openstack/clouds.yaml": (
        "clouds:\n  here:\n    region_name: RegionOne\n    auth:\n"
        f"      auth_url: {KEYSTONE}\n      username: admin\n      password: {PASSWORD}\n"
        "      project_name: admin\n      user_domain_name: Default\n"
        "      project_domain_name: Default\n"
        "  reader:\n    region_name: RegionOne\n    auth:\n"
        f"      auth_url: {KEYSTONE}\n      username: watcher\n      password: {PASSWORD}\n"
        "      project_name: admin\n      user_domain_name: Default\n"
        "      project_domain_name: Default\n"
    ),
}


def write() -> None:
    """Write them all, and give uwsgi one worker per API."""
    for path, text in FILES.items():
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = file.stat() if file.exists() else None
        file.write_text(text)
        if kept is None:
            file.chmod(0o644)
    for file in Path("/etc").glob("*/*-uwsgi.ini"):
        text = re.sub(r"(?m)^processes *=.*$", "processes = 1", file.read_text())
        text = re.sub(r"(?m)^threads *=.*$", "threads = 4", text)
        # The profile is for a kernel with AppArmor.
        text = text.replace("plugins = python3,apparmor", "plugins = python3")
        file.write_text(re.sub(r"(?m)^apparmor-profile.*$", "", text))
