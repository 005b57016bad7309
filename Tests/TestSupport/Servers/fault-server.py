"""A web server that misbehaves as it is told.

usage: fault-server.py PORT SCRIPT

SCRIPT is a JSON file: {"PATH": {"file": "/bytes/to/serve", "etag": "...", "modified": "...", "steps": [STEP, ...]}}.
"METHOD PATH" as a key wins over "PATH". The n-th request for a key takes the n-th step; after the last one, and where there is
none, the file is served as it should be. GET /__requests tells what arrived, as JSON.

A STEP is a JSON object. Served from the file, with what is named changed:
  cut, how      the connection ends after so many bytes of the body, by "fin" or "reset"
  stall         nothing more after so many bytes
  drip          after so many bytes one byte at a time, one each "pause" seconds (0.2)
  ignore-range  the whole file with 200 and no Content-Range
  status-200    a range with 200 and a right Content-Range, as rclone does
  content-range, content-length, etag, modified   another value; null: left out
  chunked       in chunks, without a length
  ignore-match  If-Match is not looked at
  file          another file
  take, how     the connection ends after so many bytes of the request's body
Or a whole answer: {"status": 503, "headers": {...}, "body": "..."}, or {"raw": "..."} for the very bytes, or {"close": "reset"}.
"""

import json
import os
import re
import socket
import struct
import sys
import threading
import time

PORT, SCRIPT = int(sys.argv[1]), sys.argv[2]
RULES = json.load(open(SCRIPT))
LOCK = threading.Lock()
TAKEN = {}
REQUESTS = []
REASONS = {200: "OK", 206: "Partial Content"}


class Gone(Exception):
    pass


def end(connection, how):
    if how == "reset":
        # Linger 0: close() sends RST in place of FIN.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
    raise Gone


def read_request(connection, rest):
    data = rest
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise Gone
        data += more
    head, data = data.split(b"\r\n\r\n", 1)
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    headers = [line.split(":", 1) for line in lines[1:]]
    headers = [[name, value.strip()] for name, value in headers]
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    request = {"method": method, "target": target, "headers": headers}
    rule, step = choose(request)
    while len(data) < step.get("take", length):
        more = connection.recv(65536)
        if not more:
            raise Gone
        data += more
    request["body"] = data[:step.get("take", length)].decode("latin-1")
    return request, rule, step, data[length:]


def choose(request):
    path = request["target"].split("?")[0]
    for key in (request["method"] + " " + path, path):
        if key in RULES:
            with LOCK:
                number = TAKEN.get(key, 0)
                TAKEN[key] = number + 1
            steps = RULES[key].get("steps", [])
            return RULES[key], steps[number] if number < len(steps) else {}
    return None, {}


def answer(connection, status, headers, body, method):
    lines = ["HTTP/1.1 %d %s" % (status, REASONS.get(status, "Told"))]
    lines += ["%s: %s" % pair for pair in headers.items() if pair[1] is not None]
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    if method != "HEAD":
        connection.sendall(body)


def serve(connection, request, rule, step):
    given = {name.lower(): value for name, value in request["headers"]}
    path = step.get("file", rule.get("file"))
    if path is None:
        return answer(connection, 404, {"Content-Length": "0"}, b"", request["method"])
    size = os.path.getsize(path)
    etag = step.get("etag", rule.get("etag"))
    modified = step.get("modified", rule.get("modified"))
    if not step.get("ignore-match"):
        if "if-match" in given and given["if-match"] != etag:
            return answer(connection, 412, {"Content-Length": "0"}, b"", request["method"])
        if "if-unmodified-since" in given and given["if-unmodified-since"] != modified:
            return answer(connection, 412, {"Content-Length": "0"}, b"", request["method"])
    first, last, status = 0, size - 1, 200
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", given.get("range", ""))
    if found and not step.get("ignore-range"):
        first = int(found[1])
        last = min(int(found[2]), size - 1) if found[2] else size - 1
        if first >= size:
            return answer(
                connection, 416, {"Content-Length": "0", "Content-Range": "bytes */%d" % size}, b"", request["method"])
        status = 200 if step.get("status-200") else 206
    length = last - first + 1
    chunked = step.get("chunked")
    headers = {"Accept-Ranges": "bytes", "ETag": etag, "Last-Modified": modified}
    headers["Content-Length"] = None if chunked else step.get("content-length", length)
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
    if found and not step.get("ignore-range"):
        headers["Content-Range"] = "bytes %d-%d/%d" % (first, last, size)
    if "content-range" in step:
        headers["Content-Range"] = step["content-range"]
    answer(connection, status, headers, b"", "HEAD")
    if request["method"] == "HEAD":
        return None
    limits = [step[name] for name in ("cut", "stall", "drip") if name in step]
    limit = min(limits + [length])
    sent = 0
    with open(path, "rb") as source:
        source.seek(first)
        while sent < limit:
            piece = source.read(min(65536, limit - sent))
            if not piece:
                break
            sent += len(piece)
            if chunked:
                piece = b"%x\r\n%s\r\n" % (len(piece), piece)
            connection.sendall(piece)
        if "cut" in step:
            # What was sent has to arrive before a reset throws it away.
            time.sleep(0.05)
            end(connection, step.get("how", "fin"))
        if "stall" in step:
            while connection.recv(1):
                pass
            raise Gone
        while "drip" in step and sent < length:
            connection.sendall(source.read(1))
            sent += 1
            time.sleep(step.get("pause", 0.2))
    if chunked:
        connection.sendall(b"0\r\n\r\n")
    if headers["Content-Length"] is None and not chunked:
        end(connection, "fin")
    return None


def handle(connection):
    rest = b""
    try:
        while True:
            request, rule, step, rest = read_request(connection, rest)
            if request["target"] == "/__requests":
                with LOCK:
                    body = json.dumps(REQUESTS).encode()
                answer(connection, 200, {"Content-Length": len(body)}, body, "GET")
                continue
            with LOCK:
                REQUESTS.append(request)
            if "take" in step:
                end(connection, step.get("how", "reset"))
            if "close" in step:
                end(connection, step["close"])
            if "raw" in step:
                connection.sendall(step["raw"].encode("latin-1"))
                end(connection, "fin")
            if "status" in step:
                body = step.get("body", "").encode()
                headers = {"Content-Length": len(body)}
                headers.update(step.get("headers", {}))
                answer(connection, step["status"], headers, body, request["method"])
            else:
                serve(connection, request, rule or {}, step)
    except (Gone, OSError):
        pass
    finally:
        connection.close()


listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", PORT))
listener.listen(128)
while True:
    accepted, _ = listener.accept()
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=handle, args=(accepted,), daemon=True).start()
