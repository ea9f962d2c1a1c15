"""A real OpenStack (Zed, from Debian 12's packages) for tests, on loopback of its own.

`python -m tests.openstack up` needs root on Debian 12. What it installs and starts lives in an
overlay over this machine's files and in network, process, mount and host name namespaces of its
own: no package, port, process or file of the machine itself is touched. Inside, everything has its
usual place (/etc/nova, /var/log/nova, port 8774), as on a controller.
"""
