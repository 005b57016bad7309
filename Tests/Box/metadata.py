"""The metadata service of EC2 for every instance of the box, at 169.254.169.254: whose instance asks is told by the source
address, as on EC2. Version 2 with its tokens; every call is recorded.

Rules by the EC2 User Guide, "Use the Instance Metadata Service to access instance metadata".
"""

import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from network import METADATA

TOKEN_PATH = "/latest/api/token"


@dataclass
class Metadata:
    """What the service knows of one instance."""

    instance_id: str
    address: str
    hostname: str
    user_data: bytes | None = None
    region: str = "eu-west-1"
    zone: str = "eu-west-1b"
    instance_type: str = "m7i.large"
    image: str = "ami-0123456789abcdef0"
    mac: str = "02:00:00:00:00:01"
    tags: dict = field(default_factory=dict)
    role: str | None = "front"
    # AccessKeyId, SecretAccessKey, Token
    keys: tuple | None = None
    # cloud-init in a container cannot see that it is on EC2 and asks without a token: HttpTokens=optional lets it.
    tokens_required: bool = True

    def document(self):
        return json.dumps({
            "accountId": "123456789012", "architecture": "x86_64", "availabilityZone": self.zone, "imageId": self.image,
            "instanceId": self.instance_id, "instanceType": self.instance_type, "pendingTime": "2026-11-24T00:00:00Z",
            "privateIp": self.address, "region": self.region, "version": "2017-09-30",
        }, indent=2)

    def credentials(self):
        key, secret, token = self.keys
        now = time.time()
        stamp = "%Y-%m-%dT%H:%M:%SZ"
        return json.dumps({
            "Code": "Success", "LastUpdated": time.strftime(stamp, time.gmtime(now)), "Type": "AWS-HMAC",
            "AccessKeyId": key, "SecretAccessKey": secret, "Token": token,
            "Expiration": time.strftime(stamp, time.gmtime(now + 6 * 3600)),
        }, indent=2)

    def tree(self):
        """Below `/latest/`: folders are dicts, items are bytes."""
        meta = {
            "ami-id": self.image, "hostname": self.hostname, "instance-id": self.instance_id,
            "instance-type": self.instance_type, "local-hostname": self.hostname, "local-ipv4": self.address, "mac": self.mac,
            "placement": {"availability-zone": self.zone, "region": self.region},
        }
        if self.tags:
            meta["tags"] = {"instance": dict(self.tags)}
        if self.role and self.keys:
            meta["iam"] = {"security-credentials": {self.role: self.credentials()}}
        tree = {"meta-data": meta, "dynamic": {"instance-identity": {"document": self.document()}}}
        if self.user_data is not None:
            tree["user-data"] = self.user_data
        return tree


@dataclass(frozen=True)
class Call:
    address: str
    method: str
    path: str
    agent: str
    had_token: bool
    status: int


class MetadataService:
    def __init__(self, gateway):
        self.instances = {}
        self.calls = []
        self._tokens = {}
        self._lock = threading.Lock()
        # Every address of the gateway: the link-local one is the only one an instance asks.
        self._server = _Server(gateway.listen(METADATA, 80), self)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metadata", daemon=True)
        self._thread.start()

    def add(self, metadata):
        self.instances[metadata.address] = metadata
        return metadata

    def calls_of(self, address):
        with self._lock:
            return [call for call in self.calls if call.address == address]

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def record(self, call):
        with self._lock:
            self.calls.append(call)

    def new_token(self, address, seconds):
        token = secrets.token_urlsafe(40)
        with self._lock:
            self._tokens[token] = (address, time.monotonic() + seconds)
        return token

    def knows(self, token, address):
        with self._lock:
            owner, end = self._tokens.get(token, (None, 0))
        return owner == address and time.monotonic() < end


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listening, service):
        super().__init__(listening.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.service = service


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_PUT(self):
        length = self.headers.get("Content-Length") or "0"
        self.rfile.read(int(length))
        self._answer(*self._put())

    def do_GET(self):
        self._answer(*self._get())

    do_HEAD = do_GET

    def _put(self):
        if self.path != TOKEN_PATH or self.headers.get("X-Forwarded-For"):
            return 403, b""
        seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds") or ""
        if not seconds.isdecimal() or not 1 <= int(seconds) <= 21600:
            return 400, b""
        token = self.server.service.new_token(self.client_address[0], int(seconds))
        return 200, token.encode(), ("X-aws-ec2-metadata-token-ttl-seconds", seconds)

    def _get(self):
        address = self.client_address[0]
        instance = self.server.service.instances.get(address)
        if instance is None:
            return 404, b""
        token = self.headers.get("X-aws-ec2-metadata-token")
        if token is None and instance.tokens_required or token is not None and not self.server.service.knows(token, address):
            return 401, b""
        # Any published version serves; `latest` is one of them.
        parts = self.path.split("?")[0].strip("/").split("/")[1:]
        place = instance.tree()
        for part in parts:
            if not isinstance(place, dict) or part not in place:
                return 404, b""
            place = place[part]
        if isinstance(place, dict):
            # The list of roles and of tags are plain names; elsewhere a folder is marked by a slash.
            place = "\n".join(name + ("/" if isinstance(value, dict) else "") for name, value in place.items())
        return 200, place if isinstance(place, bytes) else place.encode()

    def _answer(self, status, body, *headers):
        self.server.service.record(Call(
            self.client_address[0], self.command, self.path, self.headers.get("User-Agent") or "",
            "X-aws-ec2-metadata-token" in self.headers, status))
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
