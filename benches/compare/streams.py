#!/usr/bin/env python3
"""Layer 4 through the gateway and, beside it, through nginx and HAProxy: the CPU time of each per gigabyte in one
direction, per round trip of 1 KiB, and per connection, and the memory of an idle session.

    benches/compare/streams.py [BINARY] [GIGABYTES] [ROUNDS]      with any Python 3

Needs HAProxy and nginx with its stream module (apt-get install haproxy libnginx-mod-stream); those that are not there
are left out. CPU times are those that the system has counted for all processes of a proxy: they hold on a busy machine
too, other than rates. Each proxy has two threads, or two processes. Rounds alternate between the proxies.
"""
import os, re, resource, selectors, shutil, socket, statistics, subprocess, sys, tempfile, time

BINARY = sys.argv[1] if len(sys.argv) > 1 else "target/release/portcullis"
GIGABYTES = float(sys.argv[2]) if len(sys.argv) > 2 else 4
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
CONNECTIONS = 64
ROUND_TRIPS = 200_000
OPENED = 5_000
IDLE = 2_000
TICK = os.sysconf("SC_CLK_TCK")


def listen():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 0))
    s.listen(4096)
    return s


def free():
    with listen() as s:
        return s.getsockname()[1]


def in_process(work):
    """Runs work in a process of its own, whose CPU time is not that of a proxy."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def await_port(name, port):
    for _ in range(500):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"{name} does not accept connections")


def serve_bulk(listener):
    """Sends what the first eight bytes of a connection say."""
    part = memoryview(bytes(1 << 20))
    while True:
        stream, _ = listener.accept()
        left = int.from_bytes(stream.recv(8), "big")
        while left > 0:
            left -= stream.send(part[: min(left, len(part))])
        stream.close()


def serve_echo(listener):
    chooser = selectors.DefaultSelector()
    listener.setblocking(False)
    chooser.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in chooser.select():
            if key.fileobj is listener:
                stream, _ = listener.accept()
                stream.setblocking(False)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                chooser.register(stream, selectors.EVENT_READ)
                continue
            try:
                data = key.fileobj.recv(65536)
            except OSError:
                data = b""
            if data:
                key.fileobj.send(data)
            else:
                chooser.unregister(key.fileobj)
                key.fileobj.close()


def family(pid):
    """A process and those that it has started."""
    found = [pid]
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as f:
                    parent = int(f.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent == pid:
                found.append(int(entry))
    return found


def cpu(pid):
    total = 0
    for one in family(pid):
        with open(f"/proc/{one}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def memory(pid):
    total = 0
    for one in family(pid):
        with open(f"/proc/{one}/status") as f:
            total += int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1)) * 1024
    return total


def gateway(folder, bulk, echo):
    ports = free(), free()
    with open(f"{folder}/portcullis.yaml", "w") as f:
        f.write(
            f"""upstreams: {{bulk: {{targets: ["127.0.0.1:{bulk}"]}}, echo: {{targets: ["127.0.0.1:{echo}"]}}}}
streams:
- {{name: bulk, listeners: [bulk], action: {{forward: bulk}}}}
- {{name: echo, listeners: [echo], action: {{forward: echo}}}}
listeners:
- {{name: bulk, address: "127.0.0.1:{ports[0]}", kind: tcp}}
- {{name: echo, address: "127.0.0.1:{ports[1]}", kind: tcp, limits: {{connections_per_address: 20000}}}}
admin: {{address: "127.0.0.1:0"}}
log: {{access: {{output: none}}}}
process: {{threads: 2}}
"""
        )
    return [BINARY, "run", "-c", f"{folder}/portcullis.yaml"], ports


def haproxy(folder, bulk, echo):
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    if not os.path.exists(program):
        return None
    ports = free(), free()
    with open(f"{folder}/haproxy.cfg", "w") as f:
        f.write(
            f"""global
  nbthread 2
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  option splice-auto
listen bulk
  bind 127.0.0.1:{ports[0]}
  server one 127.0.0.1:{bulk}
listen echo
  bind 127.0.0.1:{ports[1]}
  server one 127.0.0.1:{echo}
"""
        )
    return [program, "-db", "-f", f"{folder}/haproxy.cfg"], ports


def nginx(folder, bulk, echo):
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    if not (os.path.exists(program) and os.path.exists(module)):
        return None
    ports = free(), free()
    servers = "".join(
        f"  server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{to}; }}\n" for port, to in zip(ports, (bulk, echo))
    )
    with open(f"{folder}/nginx.conf", "w") as f:
        f.write(
            f"load_module {module};\nworker_processes 2;\ndaemon off;\n"
            f"pid {folder}/nginx.pid;\nerror_log {folder}/error.log;\n"
            f"events {{ worker_connections 8000; }}\nstream {{\n{servers}}}\n"
        )
    return [program, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"], ports


def measure_bulk(pid, port):
    before, left = cpu(pid), int(GIGABYTES * 1e9)
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.sendall(left.to_bytes(8, "big"))
        buffer = bytearray(1 << 20)
        while left > 0:
            count = stream.recv_into(buffer)
            assert count > 0, f"{left} bytes are missing"
            left -= count
    return (cpu(pid) - before) / GIGABYTES


def connect(port):
    stream = socket.create_connection(("127.0.0.1", port))
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def measure_echo(pid, port):
    message = bytes(1024)
    streams = [connect(port) for _ in range(CONNECTIONS)]
    chooser = selectors.EpollSelector()
    for stream in streams:
        chooser.register(stream, selectors.EVENT_READ, [0])
        stream.sendall(message)
    before, done = cpu(pid), 0
    while done < ROUND_TRIPS:
        for key, _ in chooser.select():
            key.data[0] += len(key.fileobj.recv(2048))
            if key.data[0] >= len(message):
                key.data[0], done = 0, done + 1
                key.fileobj.sendall(message)
    took = cpu(pid) - before
    for stream in streams:
        stream.close()
    return took / done * 1e6


def measure_connections(pid, port):
    before = cpu(pid)
    for _ in range(OPENED):
        with connect(port) as stream:
            stream.sendall(b"x")
            assert stream.recv(1) == b"x"
    time.sleep(0.2)
    return (cpu(pid) - before) / OPENED * 1e6


def measure_memory(pid, port):
    def open_all(count):
        opened = [connect(port) for _ in range(count)]
        for stream in opened:
            stream.sendall(b"x")
            assert stream.recv(1) == b"x"
        time.sleep(1.5)
        return opened

    first = open_all(200)
    before = memory(pid)
    more = open_all(IDLE)
    each = (memory(pid) - before) / IDLE
    for stream in first + more:
        stream.close()
    return each


def main():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    listeners = listen(), listen()
    servers = [in_process(lambda: serve_bulk(listeners[0])), in_process(lambda: serve_echo(listeners[1]))]
    bulk, echo = (listener.getsockname()[1] for listener in listeners)
    running, results = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in ("portcullis", gateway), ("haproxy", haproxy), ("nginx", nginx):
            if made := make(folder, bulk, echo):
                process = subprocess.Popen(made[0], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                running[name] = process, made[1]
            else:
                print(f"{name} is not here, or lacks its stream module")
        for name, (_, ports) in running.items():
            await_port(name, ports[1])
        kinds = [
            ("CPU s per GB", measure_bulk, 0),
            ("CPU us per round trip of 1 KiB", measure_echo, 1),
            ("CPU us per connection", measure_connections, 1),
        ]
        try:
            for _ in range(ROUNDS):
                for kind, work, port in kinds:
                    for name, (process, ports) in running.items():
                        results.setdefault((kind, name), []).append(work(process.pid, ports[port]))
            for name, (process, ports) in running.items():
                results["bytes per idle session", name] = [measure_memory(process.pid, ports[1])]
        finally:
            for process, _ in running.values():
                process.terminate()
            for pid in servers:
                os.kill(pid, 9)
    for kind in dict.fromkeys(kind for kind, _ in results):
        print(kind)
        for name in running:
            seen = results[kind, name]
            digits = 3 if "GB" in kind else 1
            least, middle, most = (f"{value:.{digits}f}" for value in (min(seen), statistics.median(seen), max(seen)))
            print(f"  {name:<11} {middle:>9}   {least} to {most}")


if __name__ == "__main__":
    main()
