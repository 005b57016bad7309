"""A store that speaks S3 on loopback, fast enough not to be what is measured.

    python -m amorcebench.store --rate BYTES_PER_SECOND --first-byte SECONDS

Two addresses lead to the same objects, and are printed as the only two lines on standard output. The first is as fast
as the machine. The second holds every connection, in both directions, to the rate that S3 gives one, and makes every
answer wait as long as S3 does.

Objects live in memory and go with the process. Signatures are not checked, and there are no versions and no access
rules: the tests have judges for that. Two requests are not S3's: ``GET /?statistics`` tells in JSON what has gone over
the wire, ``DELETE /`` forgets every object.

An object is a list of pieces of memory files. A multipart upload joins its parts without copying them, and
UploadPartCopy takes pieces of another object: both cost S3's users a request and no bytes of their own. An ETag is
opaque, in the form of a multipart upload's, so that nobody takes it for an MD5, which would cost the server more than
all else.
"""

import argparse
import itertools
import json
import os
import re
import resource
import secrets
import socket
import threading
import time
import urllib.parse
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
LISTING_LIMIT = 1_000
COPY_BYTES = 1 << 20
# A paced connection sleeps after each slice: 3 ms at 80 MB/s.
PACED_BYTES = 256 << 10


class Memory:
    """A file without a name, closed with its last user."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("store", os.MFD_CLOEXEC)

    def __del__(self) -> None:
        os.close(self.descriptor)


@dataclass(frozen=True)
class Piece:
    memory: Memory
    offset: int
    length: int


@dataclass(frozen=True)
class StoredObject:
    pieces: tuple[Piece, ...]
    metadata: dict[str, str]
    etag: str = field(default_factory=lambda: f'"{secrets.token_hex(16)}-1"')
    modified: float = field(default_factory=time.time)

    @cached_property
    def size(self) -> int:
        return sum(piece.length for piece in self.pieces)

    def range(self, start: int, end: int) -> Iterator[Piece]:
        """The pieces of the bytes from ``start`` up to ``end``."""
        position = 0
        for piece in self.pieces:
            first, last = max(start, position), min(end, position + piece.length)
            if first < last:
                yield Piece(piece.memory, piece.offset + first - position, last - first)
            position += piece.length


@dataclass
class Upload:
    key: str
    metadata: dict[str, str]
    parts: dict[int, StoredObject] = field(default_factory=dict)


class S3Error(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Store:
    """Everything that is stored, and what has gone over the wire. Every method takes the lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.objects: dict[str, StoredObject] = {}
        self.uploads: dict[str, Upload] = {}
        self.received = 0
        self.sent = 0
        self.requests = 0

    def count(self, received: int = 0, sent: int = 0, requests: int = 0) -> None:
        with self.lock:
            self.received += received
            self.sent += sent
            self.requests += requests

    def statistics(self) -> dict[str, int]:
        with self.lock:
            stored = sum(stored.size for stored in self.objects.values())
            return {"received": self.received, "sent": self.sent, "requests": self.requests, "stored": stored}

    def get(self, key: str) -> StoredObject:
        with self.lock:
            if key not in self.objects:
                raise S3Error(404, "NoSuchKey", f"no object {key}")
            return self.objects[key]

    def put(self, key: str, stored: StoredObject, only_new: bool) -> None:
        with self.lock:
            if only_new and key in self.objects:
                raise S3Error(412, "PreconditionFailed", f"{key} exists")
            self.objects[key] = stored

    def delete(self, key: str) -> None:
        with self.lock:
            self.objects.pop(key, None)

    def clear(self) -> None:
        with self.lock:
            self.objects.clear()
            self.uploads.clear()

    def list(self, prefix: str) -> list[tuple[str, StoredObject]]:
        with self.lock:
            found = [(key, stored) for key, stored in self.objects.items() if key.startswith(prefix)]
        return sorted(found, key=lambda pair: pair[0].encode())

    def start_upload(self, key: str, metadata: dict[str, str]) -> str:
        identifier = secrets.token_hex(16)
        with self.lock:
            self.uploads[identifier] = Upload(key, metadata)
        return identifier

    def add_part(self, identifier: str, number: int, part: StoredObject) -> None:
        with self.lock:
            self.upload(identifier).parts[number] = part

    def parts(self, identifier: str) -> Upload:
        with self.lock:
            return self.upload(identifier)

    def abort_upload(self, identifier: str) -> None:
        with self.lock:
            self.upload(identifier)
            del self.uploads[identifier]

    def upload(self, identifier: str) -> Upload:
        """Only for methods that hold the lock."""
        if identifier not in self.uploads:
            raise S3Error(404, "NoSuchUpload", "no such upload")
        return self.uploads[identifier]


class Pace:
    """Holds one connection to a rate by sleeping until the bytes that passed were due."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.due = 0.0

    def passed(self, count: int) -> None:
        now = time.monotonic()
        self.due = max(self.due, now) + count / self.rate
        time.sleep(self.due - now)


class StoreServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, store: Store, rate: float | None = None, first_byte: float = 0) -> None:
        self.store = store
        self.rate = rate
        self.first_byte = first_byte
        super().__init__(("127.0.0.1", 0), Connection)

    def server_bind(self) -> None:
        if self.rate is not None:
            # Else the kernel would take megabytes of an upload before the pace is felt. Accepted sockets inherit it.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PACED_BYTES)
        super().server_bind()


class Connection(BaseHTTPRequestHandler):
    """One connection of a client, kept alive over its requests."""

    protocol_version = "HTTP/1.1"
    server_version = "amorcebench"
    disable_nagle_algorithm = True
    server: StoreServer

    def setup(self) -> None:
        super().setup()
        self.pace = Pace(self.server.rate) if self.server.rate else None
        self.slice = PACED_BYTES if self.pace else 1 << 30
        self.buffer = memoryview(bytearray(PACED_BYTES if self.pace else COPY_BYTES))

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing: thousands of requests would be thousands of lines."""

    # What every request has in common.

    def serve(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(address.query, keep_blank_values=True))
        path = urllib.parse.unquote(address.path, errors="surrogateescape").lstrip("/")
        self.bucket, _, self.key = path.partition("/")
        self.store = self.server.store
        self.store.count(requests=1)
        self.unread = self.command in ("PUT", "POST")
        try:
            self.route()
        except S3Error as error:
            self.fail(error)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = serve

    def route(self) -> None:
        query = self.query
        match self.command:
            case "GET" if not self.bucket and "statistics" in query:
                self.answer(200, json.dumps(self.store.statistics()).encode(), {"Content-Type": "application/json"})
            case "GET" if not self.key and "location" in query:
                self.answer_xml("LocationConstraint", "")
            case "GET" if not self.key and not query.keys() & {"uploads", "versions", "versioning"}:
                self.list_objects()
            case "GET" | "HEAD" if self.key:
                self.get_object()
            case "HEAD":
                self.answer(200)
            case "PUT" if not self.key:
                self.read_body()
                self.answer(200)
            case "PUT":
                self.put_object()
            case "POST" if "uploads" in query:
                self.read_body()
                identifier = self.store.start_upload(self.full_key, self.metadata())
                names = f"<Bucket>{escape(self.bucket)}</Bucket><Key>{escape(self.key)}</Key>"
                self.answer_xml("InitiateMultipartUploadResult", f"{names}<UploadId>{identifier}</UploadId>")
            case "POST" if "uploadId" in query:
                self.complete_upload()
            case "DELETE" if "uploadId" in query:
                self.store.abort_upload(query["uploadId"])
                self.answer(204)
            case "DELETE" if self.key:
                self.store.delete(self.full_key)
                self.answer(204)
            case "DELETE" if not self.bucket:
                self.store.clear()
                self.answer(204)
            case _:
                raise S3Error(501, "NotImplemented", f"{self.command} {self.path} is not part of this store")

    @property
    def full_key(self) -> str:
        return f"{self.bucket}/{self.key}"

    def metadata(self) -> dict[str, str]:
        """What a later answer repeats: the type and the caller's own headers."""
        return {
            name: value
            for name, value in self.headers.items()
            if name.lower() == "content-type" or name.lower().startswith("x-amz-meta-")
        }

    # Answers.

    def start_answer(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        if self.unread:
            # The client may still be sending what nobody will read.
            self.close_connection = True
        if self.server.first_byte:
            time.sleep(self.server.first_byte)
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.send_header("x-amz-request-id", "0")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.start_answer(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_xml(self, name: str, content: str, status: int = 200) -> None:
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="{NAMESPACE}">{content}</{name}>'
        self.answer(status, body.encode("utf-8", "surrogateescape"), {"Content-Type": "application/xml"})

    def fail(self, error: S3Error) -> None:
        body = f"<Error><Code>{error.code}</Code><Message>{escape(str(error))}</Message></Error>"
        self.answer(error.status, body.encode("utf-8", "surrogateescape"), {"Content-Type": "application/xml"})

    # Reading.

    def get_object(self) -> None:
        stored = self.store.get(self.full_key)
        if self.headers.get("If-Match", stored.etag) not in (stored.etag, "*"):
            raise S3Error(412, "PreconditionFailed", "the object is another one")
        start, end = self.requested_range(stored.size)
        headers = {
            **stored.metadata,
            "ETag": stored.etag,
            "Last-Modified": formatdate(stored.modified, usegmt=True),
            "Accept-Ranges": "bytes",
        }
        partial = "Range" in self.headers
        if partial:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{stored.size}"
        self.start_answer(206 if partial else 200, end - start, headers)
        if self.command == "HEAD":
            return
        self.wfile.flush()
        for piece in stored.range(start, end):
            self.send_piece(piece)
        self.store.count(sent=end - start)

    def requested_range(self, size: int) -> tuple[int, int]:
        wanted = self.headers.get("Range")
        if wanted is None:
            return 0, size
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
        if not match or not any(match.groups()):
            raise S3Error(400, "InvalidArgument", f"not a range: {wanted}")
        first, last = match.groups()
        if first == "":
            start, end = max(0, size - int(last)), size
        else:
            start, end = int(first), min(size, int(last) + 1) if last else size
        if start >= end:
            raise S3Error(416, "InvalidRange", f"{wanted} of {size} bytes")
        return start, end

    def send_piece(self, piece: Piece) -> None:
        offset, left = piece.offset, piece.length
        while left:
            count = os.sendfile(self.connection.fileno(), piece.memory.descriptor, offset, min(left, self.slice))
            if count == 0:
                raise ConnectionError("the client has gone")
            offset += count
            left -= count
            if self.pace:
                self.pace.passed(count)

    def list_objects(self) -> None:
        """ListObjectsV2, and ListObjects where the query does not ask for the second version."""
        query = self.query
        second = query.get("list-type") == "2"
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token") or query.get("start-after") or query.get("marker") or ""
        limit = min(int(query.get("max-keys", LISTING_LIMIT)), LISTING_LIMIT)

        def text(value: str) -> str:
            encoded = urllib.parse.quote(value, safe="/", errors="surrogateescape")
            return encoded if query.get("encoding-type") == "url" else escape(value)

        entries: dict[str, str] = {}
        base = f"{self.bucket}/"
        for full, stored in self.store.list(base + prefix):
            key = full[len(base) :]
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                name = key[: cut + len(delimiter)]
                entries[name] = f"<CommonPrefixes><Prefix>{text(name)}</Prefix></CommonPrefixes>"
            else:
                modified = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(stored.modified))
                entries[key] = (
                    f"<Contents><Key>{text(key)}</Key><LastModified>{modified}</LastModified>"
                    f"<ETag>{escape(stored.etag)}</ETag><Size>{stored.size}</Size>"
                    "<StorageClass>STANDARD</StorageClass></Contents>"
                )
        left = [name for name in entries if name.encode() > after.encode()]
        page = list(itertools.islice(left, limit))
        more = len(left) > len(page)
        content = f"<Name>{escape(self.bucket)}</Name><Prefix>{text(prefix)}</Prefix><MaxKeys>{limit}</MaxKeys>"
        content += f"<Delimiter>{text(delimiter)}</Delimiter>" if delimiter else ""
        content += "<EncodingType>url</EncodingType>" if query.get("encoding-type") == "url" else ""
        content += f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>"
        content += f"<KeyCount>{len(page)}</KeyCount>" if second else f"<Marker>{text(after)}</Marker>"
        if more:
            name = "NextContinuationToken" if second else "NextMarker"
            content += f"<{name}>{text(page[-1])}</{name}>"
        self.answer_xml("ListBucketResult", content + "".join(entries[name] for name in page))

    # Writing.

    def put_object(self) -> None:
        source = self.headers.get("x-amz-copy-source")
        pieces = self.copied_pieces(source) if source else self.read_body()
        stored = StoredObject(tuple(pieces), self.metadata())
        if "uploadId" in self.query:
            self.store.add_part(self.query["uploadId"], int(self.query["partNumber"]), stored)
        else:
            self.store.put(self.full_key, stored, self.headers.get("If-None-Match") == "*")
        if not source:
            self.answer(200, headers={"ETag": stored.etag})
            return
        modified = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(stored.modified))
        name = "CopyPartResult" if "uploadId" in self.query else "CopyObjectResult"
        self.answer_xml(name, f"<ETag>{escape(stored.etag)}</ETag><LastModified>{modified}</LastModified>")

    def copied_pieces(self, source: str) -> list[Piece]:
        self.read_body()
        key, _, _ = source.partition("?")
        stored = self.store.get(urllib.parse.unquote(key, errors="surrogateescape").lstrip("/"))
        if self.headers.get("x-amz-copy-source-if-match", stored.etag) != stored.etag:
            raise S3Error(412, "PreconditionFailed", "the source is another object")
        wanted = self.headers.get("x-amz-copy-source-range")
        if wanted is None:
            return list(stored.pieces)
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)
        if not match or int(match[2]) >= stored.size:
            raise S3Error(400, "InvalidArgument", f"{wanted} of {stored.size} bytes")
        return list(stored.range(int(match[1]), int(match[2]) + 1))

    def complete_upload(self) -> None:
        identifier = self.query["uploadId"]
        body = b"".join(os.pread(piece.memory.descriptor, piece.length, piece.offset) for piece in self.read_body())
        upload = self.store.parts(identifier)
        pieces: list[Piece] = []
        for part in ElementTree.fromstring(body).iter():
            if part.tag.rpartition("}")[2] != "Part":
                continue
            values = {child.tag.rpartition("}")[2]: child.text or "" for child in part}
            stored = upload.parts.get(int(values["PartNumber"]))
            if stored is None or stored.etag.strip('"') != values["ETag"].strip('"'):
                raise S3Error(400, "InvalidPart", f"part {values['PartNumber']}")
            pieces += stored.pieces
        complete = StoredObject(tuple(pieces), upload.metadata)
        self.store.put(upload.key, complete, self.headers.get("If-None-Match") == "*")
        self.store.abort_upload(identifier)
        names = f"<Bucket>{escape(self.bucket)}</Bucket><Key>{escape(self.key)}</Key>"
        self.answer_xml("CompleteMultipartUploadResult", f"{names}<ETag>{escape(complete.etag)}</ETag>")

    def read_body(self) -> list[Piece]:
        """Everything that the client sends, without the framing that it may have."""
        memory = Memory()
        streaming = self.headers.get("x-amz-content-sha256", "").startswith("STREAMING-")
        chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if streaming or chunked:
            size = self.read_chunks(memory)
        else:
            size = int(self.headers.get("Content-Length", 0))
            self.receive(memory, size)
        self.unread = False
        self.store.count(received=size)
        return [Piece(memory, 0, size)] if size else []

    def read_chunks(self, memory: Memory) -> int:
        """The chunks of HTTP or of AWS, which adds ``;chunk-signature=…`` to their sizes: the same form otherwise."""
        total = 0
        while count := int(self.rfile.readline().partition(b";")[0], 16):
            self.receive(memory, count)
            self.rfile.readline()
            total += count
        while self.rfile.readline().strip():
            pass
        return total

    def receive(self, memory: Memory, count: int) -> None:
        while count:
            got = self.rfile.readinto(self.buffer[: min(count, len(self.buffer))])
            if not got:
                raise ConnectionError("the client has gone")
            with self.buffer[:got] as filled:
                os.write(memory.descriptor, filled)
            count -= got
            if self.pace:
                self.pace.passed(got)


def main() -> None:
    parser = argparse.ArgumentParser(description="A store that speaks S3 on loopback.")
    parser.add_argument("--rate", type=float, required=True, help="bytes per second and connection, in each direction")
    parser.add_argument("--first-byte", type=float, required=True, help="seconds before each answer")
    arguments = parser.parse_args()
    # Every part of an upload is an open file.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    store = Store()
    paced = StoreServer(store, arguments.rate, arguments.first_byte)
    threading.Thread(target=paced.serve_forever, daemon=True).start()
    plain = StoreServer(store)
    for server in (plain, paced):
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
    plain.serve_forever()


if __name__ == "__main__":
    main()
