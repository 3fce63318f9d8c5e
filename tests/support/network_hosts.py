"""Hosts of one network on one machine: network namespaces behind a bridge, whose links can be cut.

What this machine does not allow (no root, no namespaces, no `ip`) skips the test with the reason.
"""

import os
import shutil
import subprocess
from contextlib import contextmanager, suppress

import pytest

_NETWORK = "10.213.{number}."


class Host:
    """A host with a name, an address and a link of its own."""

    def __init__(self, network, number):
        self.name = f"{network.name}-{number}"
        self.hostname = f"host{number}"
        self.address = f"{network.prefix}{number + 1}"
        self._link = f"{network.name}v{number}"
        ip("netns", "add", self.name)
        ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("link", "set", self._link, "master", network.name, "up")
        ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", self.name, "link", "set", device, "up")

    def start(self, command, **settings):
        """Start a program on the host, under a host name of its own."""
        renamed = ["unshare", "--uts", "sh", "-c", f'hostname {self.hostname} && exec "$@"', "sh", *command]
        return subprocess.Popen(["ip", "netns", "exec", self.name, *renamed], **settings)

    def cut(self):
        """Take the host off the network, as a pulled cable does."""
        ip("link", "set", self._link, "down")

    def mend(self):
        """Put the host on the network again."""
        ip("link", "set", self._link, "up")

    def remove(self):
        """Remove the host; its processes have ended."""
        with suppress(subprocess.CalledProcessError):
            ip("link", "del", self._link)
        with suppress(subprocess.CalledProcessError):
            ip("netns", "del", self.name)


class Network:
    """A bridge; its address is this machine's, on which servers for the hosts listen."""

    def __init__(self):
        number = os.getpid() % 250
        self.name = f"at{os.getpid() % 100000}"
        self.prefix = _NETWORK.format(number=number)
        self.address = f"{self.prefix}1"
        self.hosts = []
        ip("link", "add", self.name, "type", "bridge", "forward_delay", "0")
        ip("addr", "add", f"{self.address}/24", "dev", self.name)
        ip("link", "set", self.name, "up")

    def host(self):
        """Add a host."""
        self.hosts.append(Host(self, len(self.hosts) + 1))
        return self.hosts[-1]

    def remove(self):
        """Remove bridge and hosts."""
        for host in self.hosts:
            host.remove()
        with suppress(subprocess.CalledProcessError):
            ip("link", "del", self.name)


def ip(*words):
    """Run `ip` with some words."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)


@contextmanager
def network():
    """Make a network, and remove it with its hosts in the end."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("network namespaces need root, ip and unshare")
    try:
        made = Network()
        made.host()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made: {error.stderr.strip()}")
    try:
        yield made
    finally:
        made.remove()
