"""An HTTP/1.1 target on plain sockets that prints what it gets, byte by byte.

A line for each request: its connection, head and body, the body's bytes with their framing included;
`garbage` for bytes that begin no request, `incomplete` for a request that was cut short. It answers
with the same line, or as the path says.
"""

import hashlib
import json
import re
import threading
import time

from common import end_with_parent, listen, say

DATE = "Tue, 15 Nov 1994 08:12:31 GMT"
HEAD = re.compile(rb"[A-Z]+ \S+ HTTP/1\.[01]\r\n")
HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"
FIXED = {
    "/not-modified": b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\netag: \"v1\"\r\n\r\n",
    "/date": f"HTTP/1.1 200 OK\r\ndate: {DATE}\r\ncontent-length: 2\r\n\r\nok".encode(),
    "/no-date": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "/hints": HINTS + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "/two-hints": HINTS + HINTS + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    # Ends too early, by each way of framing; and one that ends rightly with its connection.
    "/cut-length": b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
    "/cut-chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "/cut-chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\nhello",
    "/to-the-end": b"HTTP/1.1 200 OK\r\n\r\nhello",
    "/early": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nearly",
    "/hops": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive, x-of-this-hop\r\nx-of-this-hop: 1\r\n"
    b"keep-alive: timeout=77\r\nproxy-connection: keep-alive\r\nte: trailers\r\nupgrade: h2c\r\nx-end-to-end: 1\r\n\r\nok",
}

seen = {}
lock = threading.Lock()


class Gone(Exception):
    pass


class Connection:
    def __init__(self, sock, number):
        self.sock, self.number, self.buffer = sock, number, b""

    def fill(self):
        part = self.sock.recv(65536)
        if not part:
            raise Gone
        self.buffer += part

    def until(self, what):
        while what not in self.buffer:
            self.fill()
        return self.take(self.buffer.index(what) + len(what))

    def take(self, count):
        while len(self.buffer) < count:
            self.fill()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def serve(self):
        try:
            while self.request():
                pass
        except (Gone, OSError):
            if self.buffer:
                say(connection=self.number, incomplete=self.buffer[:500].decode("latin-1"))
        self.sock.close()

    def request(self):
        raw = self.until(b"\r\n\r\n")
        if not HEAD.match(raw):
            self.buffer = b""
            say(connection=self.number, garbage=raw[:500].decode("latin-1"))
            # From a distance: by then the connection looks unused.
            time.sleep(0.05)
            self.sock.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return False
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
        headers = [[n.lower(), v.strip()] for n, _, v in (line.partition(":") for line in lines)]
        named = dict(headers)
        if target.startswith("/never-read"):
            say(connection=self.number, target=target, head_only=True)
            while self.sock.recv(1):
                time.sleep(60)
        if target == "/early":
            # Answers before the body is there, and reads on so that nothing is reset.
            self.sock.sendall(FIXED[target])
            while self.sock.recv(65536):
                pass
            return False
        try:
            body, framed = self.body(named)
        except (Gone, OSError):
            say(connection=self.number, incomplete=(raw + self.buffer)[:500].decode("latin-1"), target=target)
            self.buffer = b""
            raise Gone
        line = {
            "connection": self.number, "method": method, "target": target, "version": version, "headers": headers,
            "length": len(body), "sha256": hashlib.sha256(body).hexdigest(),
            "body": body[:500].decode("latin-1"), "framed": framed[:500].decode("latin-1"),
        }
        with lock:
            seen[target] = seen.get(target, 0) + 1
            times = seen[target]
        say(**line)
        return self.answer(method, target, line, times)

    def body(self, named):
        if "expect" in named:
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "transfer-encoding" not in named:
            body = self.take(int(named.get("content-length", "0")))
            return body, body
        parts, framed = [], []
        while True:
            line = self.until(b"\r\n")
            size = int(line.split(b";")[0], 16)
            if size == 0:
                rest = line
                while not rest.endswith(b"\r\n\r\n"):
                    rest += self.until(b"\r\n")
                return b"".join(parts), b"".join(framed) + rest
            chunk = self.take(size + 2)
            parts.append(chunk[:-2])
            framed.append(line + chunk)

    def answer(self, method, target, line, times):
        path, _, query = target.partition("?")
        if path.startswith("/fail-first") and times == 1:
            return False
        if query.startswith("delay="):
            # Its distance: what is sent after the end of the request arrives before the answer leaves.
            time.sleep(int(query[6:]) / 1000)
        fixed = FIXED.get(path)
        if fixed is None:
            body = json.dumps(line).encode()
            fixed = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            fixed += b"" if method == "HEAD" else body
        elif method == "HEAD":
            fixed = fixed[: fixed.rindex(b"\r\n\r\n") + 4]
        self.sock.sendall(fixed)
        return not path.startswith(("/cut", "/to-the-end"))


end_with_parent()
listener = listen()
say(port=listener.getsockname()[1])
number = 0
while True:
    accepted, _ = listener.accept()
    accepted.setsockopt(6, 1, 1)
    threading.Thread(target=Connection(accepted, number).serve, daemon=True).start()
    number += 1
