"""One network of the box: a namespace for each host, all on a bridge in a namespace of its own.

No interface and no address appears outside these namespaces. The bridge answers at 169.254.169.254 as well, where an
instance looks for its metadata.
"""

import http.client
import socket
from dataclasses import dataclass
from pathlib import Path

from isolation import inside_network
from programs import run

SUBNET = "10.77.0"
GATEWAY = SUBNET + ".1"
METADATA = "169.254.169.254"


@dataclass(frozen=True)
class Host:
    """A place on the network."""

    name: str
    address: str
    namespace: Path
    lan: Path

    def command(self, argv):
        """`argv`, run on this host's network."""
        return ["nsenter", f"--net={self.namespace}", "--"] + [str(word) for word in argv]

    def listen(self, address, port):
        with inside_network(self.namespace):
            server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen(64)
        return server

    def connect(self, address, port, timeout=10):
        with inside_network(self.namespace):
            client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.settimeout(timeout)
        try:
            client.connect((address, port))
        except BaseException:
            client.close()
            raise
        return client

    def get(self, address, path="/", host=None, port=80, timeout=30, headers=None, method="GET"):
        """One HTTP request on a connection of its own: (status, body)."""
        connection = http.client.HTTPConnection(host or address, port, timeout=timeout)
        connection.sock = self.connect(address, port, timeout)
        try:
            connection.request(method, path, headers={"Connection": "close", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def unplug(self):
        """Nothing answers any more, as when the machine has died."""
        run("nsenter", f"--net={self.lan}", "ip", "link", "set", self.name, "down")

    def plug(self):
        run("nsenter", f"--net={self.lan}", "ip", "link", "set", self.name, "up")


    def hide(self, address):
        """As if nothing were there, from this host only."""
        run("nsenter", f"--net={self.namespace}", "ip", "route", "add", "unreachable", address)


class Network:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir()
        self._count = 1
        lan = self._namespace("lan")
        self.gateway = Host("lan", GATEWAY, lan, lan)
        for words in (
            "link add br0 type bridge",
            f"address add {GATEWAY}/24 dev br0",
            f"address add {METADATA}/32 dev br0",
            "link set br0 up",
        ):
            self._ip(lan, words)

    def host(self, name):
        """A new host with the next free address. Its name is that of the bridge's port too: at most 15 bytes."""
        self._count += 1
        address = f"{SUBNET}.{self._count}"
        lan, own = self.gateway.namespace, self._namespace(name)
        self._ip(lan, f"link add {name} type veth peer name eth0 netns {own}")
        self._ip(lan, f"link set {name} master br0 up")
        for words in (f"address add {address}/24 dev eth0", "link set eth0 up", f"route add default via {GATEWAY}"):
            self._ip(own, words)
        return Host(name, address, own, lan)

    def _namespace(self, name):
        path = self.folder / name
        path.touch()
        # The namespace lives by the mount on this file, which only this process and its children see.
        run("unshare", f"--net={path}", "ip", "link", "set", "lo", "up")
        return path

    @staticmethod
    def _ip(namespace, words):
        run("nsenter", f"--net={namespace}", "ip", *words.split())
