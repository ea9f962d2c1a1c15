"""Which process is which service, by its command line alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent_client.discovery.catalogue import catalogue
from agent_client.discovery.identify import identify, names

ORDINARY = [
    line
    for line in (Path(__file__).parent / "ordinary_processes.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def kernel_name(line: str) -> str:
    return os.path.basename(line.split(" ")[0])[:15]


def test_no_ordinary_process_is_taken_for_a_service() -> None:
    assert len(ORDINARY) >= 300
    taken = {
        line: kind.name
        for line in ORDINARY
        if (kind := identify(kernel_name(line), line.split(" "), catalogue())) is not None
    }
    assert taken == {}


@pytest.mark.parametrize(
    ("comm", "line", "service"),
    [
        ("nova-compute", "/usr/bin/python3 /usr/bin/nova-compute --config-file=/etc/nova/nova.conf",
         "nova-compute"),
        ("nova-compute", "/usr/bin/python3 -W ignore -u /usr/bin/nova-compute", "nova-compute"),
        ("cinder-schedule", "/usr/bin/python3 /usr/bin/cinder-scheduler --config-file=/etc/x",
         "cinder-scheduler"),
        ("uwsgi_python311", "/usr/bin/uwsgi_python311 --http-socket :8774 --ini "
         "/etc/nova/nova-api-uwsgi.ini", "nova-api"),
        ("uwsgi_python311", "/usr/bin/uwsgi_python311 --http-socket :8775 --ini "
         "/etc/nova/nova-api-metadata-uwsgi.ini", "nova-api-metadata"),
        ("uwsgi", "uwsgi /etc/heat/heat-api-uwsgi.ini", "heat-api"),
        ("uwsgi", "uwsgi --ini=/etc/heat/heat-api-cfn-uwsgi.ini", "heat-api-cfn"),
        ("uwsgi", "uwsgi --procname-prefix nova-api --ini /etc/nova/nova-api-uwsgi.ini",
         "nova-api"),
        ("nova-apiuWSGI w", "nova-apiuWSGI worker 2", "nova-api"),
        ("uwsgi", "/usr/sbin/uwsgi --http :8778 --wsgi-file /usr/bin/placement-api",
         "placement-api"),
        ("neutron-linuxbr", "neutron-linuxbridge-agent (/usr/bin/python3 "
         "/usr/bin/neutron-linuxbridge-agent --config-file=/etc/neutron/neutron.conf)",
         "neutron-linuxbridge-agent"),
        ("neutron-server:", "neutron-server: rpc worker (/usr/bin/python3 "
         "/usr/bin/neutron-rpc-server --config-file=/etc/x)", "neutron-rpc-server"),
        ("neutron-server:", "neutron-server: api worker (/usr/bin/python3.6 "
         "/usr/bin/neutron-server --config-file /etc/x)", "neutron-server"),
        ("/usr/bin/python", "/usr/bin/python3 /usr/bin/neutron-rpc-server --config-file=/etc/x",
         "neutron-rpc-server"),
        ("ceilometer-poll", "ceilometer-polling: master process [/usr/bin/ceilometer-polling "
         "--polling-namespaces central]", "ceilometer-agent-central"),
        ("ceilometer-poll", "ceilometer-polling: AgentManager worker(0)", "ceilometer-polling"),
        ("octavia-worker:", "octavia-worker: ConsumerService worker(0)", "octavia-worker"),
        ("python3", "/var/lib/kolla/venv/bin/python3 /var/lib/kolla/venv/bin/nova-conductor",
         "nova-conductor"),
        ("apache2", "(wsgi:keystone-pu -k start", "keystone"),
        ("httpd", "(wsgi:keystone- -DFOREGROUND", "keystone"),
        ("apache2", "(wsgi:horizon) -k start", "horizon"),
        ("httpd", "keystone-main   -DFOREGROUND", "keystone"),
        ("httpd", "placement_wsgi  -DFOREGROUND", "placement-api"),
        ("httpd", "heat_api_wsgi   -DFOREGROUND", "heat-api"),
        ("httpd", "heat_api_cfn_ws -DFOREGROUND", "heat-api-cfn"),
        ("httpd", "httpd -DFOREGROUND", "apache"),
        ("apache2", "/usr/sbin/apache2 -k start", "apache"),
        ("beam.smp", "/usr/lib/erlang/erts-13.1.5/bin/beam.smp -W w -- -root /usr/lib/erlang -- "
         "-noshell -noinput -s rabbit boot -sname rabbit@x", "rabbitmq-server"),
        ("mariadbd", "/usr/sbin/mariadbd", "mariadb"),
        ("mysqld", "/usr/libexec/mysqld --basedir=/usr", "mariadb"),
        ("postgres", "postgres: walwriter", "postgresql"),
        ("postgres", "/usr/lib/postgresql/15/bin/postgres -h localhost -D /x", "postgresql"),
        ("haproxy", "/usr/sbin/haproxy -V -Ws -f /etc/haproxy/haproxy.cfg", "haproxy"),
        ("ovsdb-server", "ovsdb-server /etc/openvswitch/conf.db --remote=punix:/x",
         "ovsdb-server"),
        ("ovsdb-server", "ovsdb-server --remote=punix:/var/run/ovn/ovnnb_db.sock "
         "/var/lib/ovn/ovnnb_db.db", "ovn-nb-db"),
        ("redis-server", "/usr/bin/redis-sentinel *:26379 [sentinel]", "redis-sentinel"),
        ("nginx", "nginx: worker process", "nginx"),
        ("gunicorn", "gunicorn: master [skyline_apiserver.main:app]", "skyline-apiserver"),
        ("mistral-server", "/usr/bin/python3 /usr/bin/mistral-server --server event-engine",
         "mistral-event-engine"),
        ("nova-compute", "", "nova-compute"),  # a zombie: only the kernel's name is left
    ],
)  # fmt: skip
def test_a_service_is_found_behind_interpreters_titles_and_cut_names(
    comm: str, line: str, service: str
) -> None:
    kind = identify(comm, line.split(" ") if line else [], catalogue())
    assert kind is not None
    assert kind.name == service


def test_each_service_of_the_catalogue_is_found_by_its_own_program() -> None:
    for kind in catalogue().kinds.values():
        if kind.openstack and kind.argv is None and kind.programs:
            line = f"/usr/bin/python3 /usr/bin/{kind.programs[0]} --config-file /etc/x.conf"
            found = identify("python3", line.split(" "), catalogue())
            assert found is kind, line


def test_the_catalogue_names_every_project_and_no_word_for_two_services() -> None:
    projects = {kind.project for kind in catalogue().kinds.values()}
    wanted = (
        "nova neutron keystone glance cinder heat ceilometer placement swift ironic octavia "
        "barbican magnum designate manila murano horizon aodh gnocchi trove zun masakari watcher "
        "rabbitmq mariadb postgresql memcached haproxy keepalived libvirt openvswitch ovn ceph "
        "etcd redis valkey apache nginx chrony corosync pacemaker"
    )
    assert projects >= set(wanted.split(" "))
    for index in (catalogue().ini, catalogue().wsgi):
        shared = {word: [one.name for one in kinds] for word, kinds in index.items()
                  if len([one for one in kinds if one.argv is None]) > 1}  # fmt: skip
        assert shared == {}


@pytest.mark.parametrize(
    ("comm", "line", "name"),
    [
        ("python", "python -m agent_client.cli run --config /x", "agent_client.cli"),
        ("bash", "/bin/bash /usr/local/bin/our-gateway --loop", "our-gateway"),
        ("uwsgi", "uwsgi --ini /etc/shop/shop-uwsgi.ini", "shop"),
        ("apache2", "(wsgi:keystone-public) -k start", "keystone-public"),
        ("postgres", "postgres: walwriter", "postgres"),
        ("neutron-linuxbr", "neutron-linuxbridge-agent (/usr/bin/python3 "
         "/usr/bin/neutron-linuxbridge-agent --config-file=/x)", "neutron-linuxbridge-agent"),
    ],
)  # fmt: skip
def test_a_configured_service_is_called_by_any_name_an_operator_would_use(
    comm: str, line: str, name: str
) -> None:
    assert name in names(comm, line.split(" "))


@pytest.mark.parametrize(
    "line",
    [
        "tail -f /var/log/nova/nova-compute.log",
        "grep nova-compute /etc/services",
        "vim nova-compute",
        "vim /usr/bin/nova-compute",
        "/usr/bin/python3 /bin/privsep-helper --config-file /etc/nova/nova-compute.conf",
        "sudo nova-rootwrap /etc/nova/rootwrap.conf nova-compute",
        "ssh nova-compute",
        "/usr/bin/python3 /usr/bin/nova-manage nova-compute",
    ],
)
def test_what_only_mentions_a_configured_service_is_not_it(line: str) -> None:
    assert "nova-compute" not in names(kernel_name(line), line.split(" "))
