#!/usr/bin/env python3
"""Attacks on the gateway and, beside it, on HAProxy (apt-get install haproxy): what good clients still get, and what it
costs in memory and descriptors.

    benches/compare/attacks.py [BINARY]      with any Python 3

Good clients ask fifty times a second, each on a new connection, and wait two seconds at most.
"""
import asyncio, os, socket, subprocess, sys, tempfile, threading, time

BINARY = sys.argv[1] if len(sys.argv) > 1 else "target/release/portcullis"
SECONDS = 8
BODY = b"x" * 1_000_000


def listen(backlog=1024):
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen(backlog)
    return s


def two_ports():
    """The first of two ports that nobody has."""
    while True:
        with listen() as one:
            port = one.getsockname()[1]
            with socket.socket() as two:
                try:
                    two.bind(("127.0.0.1", port + 1))
                    return port
                except OSError:
                    continue


def target():
    """Answers /big with a megabyte and anything else with two bytes."""
    s = listen()

    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = BODY if b" /big" in head.split(b"\r\n")[0] else b"ok"
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main():
        await (await asyncio.start_server(serve, sock=s)).serve_forever()

    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
    return s.getsockname()[1]


def silent():
    """A target whose queue is full: further SYNs are dropped."""
    s = listen(0)
    held = []
    for _ in range(4):
        c = socket.socket()
        c.setblocking(False)
        c.connect_ex(s.getsockname())
        held.append(c)
    return s, held


def portcullis(good, away, folder, port):
    config = f"""
process: {{threads: 2}}
log: {{access: {{output: none}}}}
admin: {{address: 127.0.0.1:0}}
listeners: [{{name: main, address: 127.0.0.1:{port}, protocols: [http1, http2], limits: {{connections: 6000}}}}, {{name: small, address: 127.0.0.1:{port + 1}, limits: {{connections: 1000}}}}]
upstreams: {{one: {{targets: ["127.0.0.1:{good}"]}}, away: {{targets: ["127.0.0.1:{away}"]}}}}
routes: [{{name: away, match: {{path: /away}}, action: {{forward: away}}}}, {{name: one, action: {{forward: one}}}}]
"""
    path = os.path.join(folder, "portcullis.yaml")
    open(path, "w").write(config)
    return [BINARY, "run", "-q", "-c", path]


def haproxy(good, away, folder, port):
    config = f"""
global
  nbthread 2
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 60s
frontend main
  bind 127.0.0.1:{port}
  maxconn 6000
  use_backend away if {{ path /away }}
  default_backend one
frontend small
  bind 127.0.0.1:{port + 1}
  maxconn 1000
  default_backend one
backend one
  server s 127.0.0.1:{good}
backend away
  server s 127.0.0.1:{away}
"""
    path = os.path.join(folder, "haproxy.cfg")
    open(path, "w").write(config)
    return ["haproxy", "-f", path]


def get(port, path, timeout=2.0):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as s:
            s.settimeout(timeout)
            s.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path)
            return b" 200 " in s.recv(200)
    except OSError:
        return False


class Watch:
    """Good clients, and the peaks of the process."""

    def __init__(self, pid, port):
        self.pid, self.port, self.good, self.all, self.rss, self.fds = pid, port, 0, 0, 0, 0
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.ask), threading.Thread(target=self.look)]
        [t.start() for t in self.threads]

    def ask(self):
        while not self.stop.wait(0.02):
            self.all += 1
            self.good += get(self.port, b"/good")

    def look(self):
        while not self.stop.wait(0.1):
            status = open(f"/proc/{self.pid}/status").read()
            self.rss = max(self.rss, int(status.split("VmRSS:")[1].split()[0]) // 1024)
            self.fds = max(self.fds, len(os.listdir(f"/proc/{self.pid}/fd")))

    def end(self):
        self.stop.set()
        [t.join() for t in self.threads]
        return f"good {self.good} of {self.all}, {self.rss} MiB, {self.fds} descriptors"


def leaving(port, until):
    def work():
        while time.time() < until:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1) as s:
                    s.sendall(b"GET /away HTTP/1.1\r\nHost: x\r\n\r\n")
            except OSError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]


def many(port, count, request, source="127.0.0.1"):
    held = []
    for _ in range(count):
        s = socket.socket()
        s.settimeout(2)
        try:
            s.bind((source, 0))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", port))
            s.sendall(request)
            held.append(s)
        except OSError:
            s.close()
    return held


def unread_http1(port, until):
    held = many(port, 2_000, b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(max(0, until - time.time()))
    [s.close() for s in held]


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name, value):
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def h2(port, count, streams, settings, path, more=b""):
    head = b"".join(literal(*f) for f in [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"x"), (b":path", path)]) + more
    data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, settings)
    data += b"".join(frame(1, 5, 2 * k + 1, head) for k in range(streams))
    return many(port, count, data)


def unread_http2(port, until):
    held = h2(port, 20, 100, b"\0\4\0\0\0\0", b"/big")
    time.sleep(max(0, until - time.time()))
    [s.close() for s in held]


def fields(port, until):
    held = []
    while time.time() < until:
        held = h2(port, 20, 100, b"", b"/good", b"\x90" * 1_900)
        time.sleep(0.5)
        [s.close() for s in held]


def idle(port, until):
    held = many(port + 1, 2_000, b"", source="127.0.0.2")
    time.sleep(max(0, until - time.time()))
    [s.close() for s in held]


ATTACKS = [(leaving, 0), (unread_http1, 0), (unread_http2, 0), (fields, 0), (idle, 1)]


def main():
    for attack, offset in ATTACKS:
        for name, command in [("portcullis", portcullis), ("haproxy", haproxy)]:
            good, (away, _held) = target(), silent()
            with tempfile.TemporaryDirectory() as folder:
                port = two_ports()
                process = subprocess.Popen(command(good, away.getsockname()[1], folder, port), stdout=subprocess.DEVNULL)
                try:
                    if not any(get(port, b"/good", 0.2) or time.sleep(0.05) for _ in range(100)):
                        raise SystemExit(f"{name} does not serve")
                    watch = Watch(process.pid, port + offset)
                    attack(port, time.time() + SECONDS)
                    print(f"{attack.__name__:14} {name:11} {watch.end()}", flush=True)
                finally:
                    process.kill()
                    process.wait()


main()
