"""A name server on port 53 of ADDRESS: absent.* is NXDOMAIN, broken.* SERVFAIL, silent.* gets no answer, the rest 127.0.0.1.

usage: name-server.py PORT ADDRESS; it also listens on TCP PORT of 127.0.0.1, which only tells that it is up.
"""

import socket
import sys

names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind((sys.argv[2], 53))
ready = socket.socket()
ready.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
ready.bind(("127.0.0.1", int(sys.argv[1])))
ready.listen(16)

while True:
    query, client = names.recvfrom(512)
    end = query.index(b"\0", 12) + 5
    first = query[13:13 + query[12]]
    if first == b"silent":
        continue
    code = {b"absent": 3, b"broken": 2}.get(first, 0)
    is_address = query[end - 4:end - 2] == b"\0\1"
    answers = 1 if code == 0 and is_address else 0
    reply = query[:2] + bytes([0x81, 0x80 | code]) + b"\0\1" + bytes([0, answers]) + b"\0\0\0\0" + query[12:end]
    if answers:
        reply += b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1"
    names.sendto(reply, client)
