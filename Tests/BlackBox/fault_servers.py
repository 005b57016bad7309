"""Servers that a front meets, on free loopback ports: a web server with and without ranges, rclone's S3 server, a metadata
service with a role, and a proxy that stops half-way. Each is a context manager, and keeps what it was asked."""

import collections
import contextlib
import email.utils
import hashlib
import http.client
import http.server
import json
import os
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

from scratch_front import free_port

TOOLS = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "amorce-tests/bin"


class _Server:
    """An HTTP server on threads. Subclasses answer in `answer(handler)`."""

    def __init__(self):
        self.requests = []
        self.together = self.mostTogether = 0
        self._lock = threading.Lock()
        self._end = threading.Event()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                with owner._lock:
                    owner.requests.append((self.command, self.path, dict(self.headers)))
                    owner.together += 1
                    owner.mostTogether = max(owner.mostTogether, owner.together)
                try:
                    owner.answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    with owner._lock:
                        owner.together -= 1

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_CONNECT = handle_any

            def log_message(self, *_):
                pass

            def reply(self, status, body=b"", headers=()):
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        class Listener(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_):
                pass

        self._server = Listener(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._server.shutdown()
        self._server.server_close()

    def hold(self, seconds):
        """Does nothing for so long, or until the server ends."""
        self._end.wait(seconds)


class WebServer(_Server):
    """The files of a folder. `hasRanges`: answers ranges, else always sends everything. `stallAt`: no more than so many bytes of
    a file, ever, with the connection kept. `status`: in place of every file. `meet`: answers wait until so many are on their way."""

    def __init__(self, folder, hasRanges=True, stallAt=None, status=None, meet=0):
        super().__init__()
        self.folder, self.hasRanges, self.stallAt, self.status, self.meet = Path(folder), hasRanges, stallAt, status, meet
        self.sent = 0

    def answer(self, handler):
        path = self.folder / handler.path.lstrip("/").split("?")[0]
        if self.status:
            return handler.reply(self.status, b"no")
        if not path.is_file():
            return handler.reply(404, b"none")
        size = path.stat().st_size
        span = re.match(r"bytes=(\d+)-(\d*)$", handler.headers.get("Range", "")) if self.hasRanges else None
        first, end = 0, size
        if span:
            first, end = int(span[1]), min(size, int(span[2]) + 1) if span[2] else size
        etag = f'"{size:x}-{path.stat().st_mtime_ns:x}"'
        handler.send_response(206 if span else 200)
        handler.send_header("Content-Length", str(end - first))
        if self.hasRanges:
            handler.send_header("ETag", etag)
            handler.send_header("Accept-Ranges", "bytes")
        if span:
            handler.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        handler.send_header("Last-Modified", email.utils.formatdate(path.stat().st_mtime, usegmt=True))
        handler.end_headers()
        if handler.command == "HEAD":
            return
        handler.wfile.flush()
        deadline = time.monotonic() + 10
        while span and self.mostTogether < self.meet and time.monotonic() < deadline:
            self.hold(0.02)
        if self.stallAt is not None and end > self.stallAt:
            end = max(first, self.stallAt)
        with open(path, "rb") as file:
            while first < end:
                sent = os.sendfile(handler.connection.fileno(), file.fileno(), first, min(end - first, 1 << 20))
                if sent == 0:
                    break
                first += sent
                with self._lock:
                    self.sent += sent
        if self.stallAt is not None and end == self.stallAt:
            self.hold(600)


class BucketServer:
    """rclone's S3 server over a folder; a folder below it is a bucket. Its signatures are checked."""

    key, secret = "AKTESTMADEUP", "MADE-UP-SECRET/of+the+bucket"

    def __init__(self, folder, keys=None):
        self.folder = Path(folder)
        self.keys = keys or [(self.key, self.secret)]
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {"AWS_ACCESS_KEY_ID": self.keys[0][0], "AWS_SECRET_ACCESS_KEY": self.keys[0][1],
                            "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_S3": self.url}

    def __enter__(self):
        words = [TOOLS / "rclone", "serve", "s3", self.folder, "--addr", f"127.0.0.1:{self.port}", "--config", "/dev/null"]
        for key, secret in self.keys:
            words += ["--auth-key", f"{key},{secret}"]
        if not words[0].exists():
            raise RuntimeError("rclone is not there: run scripts/test-tools")
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        self.__exit__()
        raise RuntimeError("rclone does not listen")

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()


def client(service, url, key, secret):
    import botocore.session
    return botocore.session.Session().create_client(
        service, region_name="us-east-1", endpoint_url=url, aws_access_key_id=key, aws_secret_access_key=secret)


def keys(key, secret, url):
    """The environment of one who may use a store."""
    return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL_S3": url}


class _PythonServer:
    """A server of Python's, which says when it answers. `words` know its port."""

    def __init__(self, words, environment=None):
        self._words, self._environment = words, environment or {}

    def __enter__(self):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        words = [word.replace("{port}", str(self.port)) for word in self._words]
        environment = {name: value.replace("{port}", str(self.port)) for name, value in self._environment.items()}
        self._process = subprocess.Popen(
            [TOOLS / words[0], *words[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], **environment})
        for _ in range(1200):
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
                connection.request("GET", "/")
                connection.getresponse().read()
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        self.__exit__()
        raise RuntimeError(f"{words[0]} does not listen")

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()


class Moto(_PythonServer):
    """Amazon's S3 as moto plays it: parts, ranges that are copied, conditional writes. Signatures are not checked."""

    key, secret = "AKTESTMADEUP", "MADE-UP-SECRET/of+the+bucket"

    def __init__(self):
        super().__init__(["moto_server", "-H", "127.0.0.1", "-p", "{port}"])

    @property
    def environment(self):
        return keys(self.key, self.secret, self.url)

    def client(self, service="s3"):
        return client(service, self.url, self.key, self.secret)


class Ministack(_PythonServer):
    """S3 with users and what they may do."""

    def __init__(self, folder):
        super().__init__(["ministack"], {
            "HOME": str(folder), "TMPDIR": str(folder), "AUTH": "true", "GATEWAY_PORT": "{port}", "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "127.0.0.1", "MINISTACK_REGION": "us-east-1"})

    def client(self, service="s3"):
        return client(service, self.url, "test", "test")

    def user(self, name, *actions):
        """The environment of a new user who may do `actions` and nothing else."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps({
            "Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}))
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return keys(made["AccessKeyId"], made["SecretAccessKey"], self.url)


class StoreProxy(_Server):
    """Stands before a store on `port`. Each request is shown to `fault(ask)`, which says what becomes of it: None, it is handed
    on; (status, body), the answer in the store's place; "reset", the connection ends before the store hears of it;
    "lose", it ends in place of the store's answer; a function, the answer's body passes through it, and a part of it that is left
    out is never sent; the connection ends there. `sent`: bytes of what was got."""

    Ask = collections.namedtuple("Ask", "method path query headers")

    def __init__(self, port, fault=lambda ask: None):
        super().__init__()
        self.target, self.fault = port, fault
        self.sent = 0

    def answer(self, handler):
        path, _, query = handler.path.partition("?")
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        fault = self.fault(self.Ask(handler.command, path, query, handler.headers))
        if isinstance(fault, tuple):
            return handler.reply(*fault, [("Content-Type", "application/xml")])
        if fault == "reset":
            return self._reset(handler)
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=60)
        connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
        for name, value in handler.headers.items():
            if name.lower() not in ("connection", "expect"):
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if fault == "lose":
            return self._reset(handler)
        handler.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                handler.send_header(name, value)
        length = answer.getheader("Content-Length") if handler.command == "HEAD" else len(data)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        if handler.command == "HEAD":
            return
        whole = len(data)
        if fault:
            data = fault(data)
        handler.wfile.write(data)
        if handler.command == "GET":
            with self._lock:
                self.sent += len(data)
        if len(data) < whole:
            self._reset(handler)

    @staticmethod
    def _reset(handler):
        with contextlib.suppress(OSError):
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True


class MetadataService(_Server):
    """The EC2 instance metadata service, version 2: a token first, then what `items` has. `token`: an answer to the request for
    a token in place of a token, a status or "hang"; `failures`: so many 503 before everything else."""

    role = "front-role"

    def __init__(self, credentials=(), items=None, token=None, failures=0):
        super().__init__()
        self.credentials, self.token, self.failures = list(credentials), token, failures
        self.given = 0
        self.items = {"meta-data/instance-id": "i-0123456789abcdef0", "meta-data/placement/region": "eu-west-1",
                      "meta-data/placement/availability-zone": "eu-west-1a", "meta-data/local-ipv4": "10.0.1.20",
                      "meta-data/instance-type": "t3.small", "meta-data/ami-id": "ami-0123456789abcdef0", **(items or {})}
        self.environment = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url}

    @staticmethod
    def document(key, secret, seconds=3600, code="Success"):
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        return {"Code": code, "LastUpdated": "2026-11-24T00:00:00Z", "Type": "AWS-HMAC", "AccessKeyId": key, "SecretAccessKey": secret,
                "Token": "MADE-UP-SECRET-token", "Expiration": expires}

    def answer(self, handler):
        path = handler.path.removeprefix("/latest/")
        with self._lock:
            isFailing, self.failures = self.failures > 0, self.failures - 1
        if isFailing:
            return handler.reply(503)
        if path == "api/token":
            seconds = handler.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
            if self.token == "hang":
                return self.hold(600)
            if self.token:
                return handler.reply(self.token)
            if handler.command != "PUT" or not seconds.isdigit() or not 1 <= int(seconds) <= 21600:
                return handler.reply(400)
            return handler.reply(200, b"TOKEN-MADE-UP-SECRET", [("X-aws-ec2-metadata-token-ttl-seconds", seconds)])
        if handler.headers.get("X-aws-ec2-metadata-token") != "TOKEN-MADE-UP-SECRET":
            return handler.reply(401)
        if path == "meta-data/iam/security-credentials/" and self.credentials:
            return handler.reply(200, self.role.encode())
        if path == f"meta-data/iam/security-credentials/{self.role}" and self.credentials:
            with self._lock:
                document = self.credentials[min(self.given, len(self.credentials) - 1)]
                self.given += 1
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            return handler.reply(200, body)
        if path in self.items:
            return handler.reply(200, self.items[path].encode())
        return handler.reply(404)


class RecordingProxy(_Server):
    """Refuses all it is asked."""

    def answer(self, handler):
        handler.reply(502)


class StallingProxy:
    """Hands a TCP connection on to `port`, and of the answers no more than `limit` bytes; then it keeps still, connected."""

    def __init__(self, port, limit):
        self.target, self.limit = port, limit
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=32)
        self.port = self._listener.getsockname()[1]
        self._open = []

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        for each in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            self.connections += 1
            self._open += [client, server]
            threading.Thread(target=self._copy, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, self.limit), daemon=True).start()

    @staticmethod
    def _copy(source, target, left):
        with contextlib.suppress(OSError):
            while left is None or left > 0:
                data = source.recv(65536 if left is None else min(left, 65536))
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)
                left = left and left - len(data)


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
