"""A client on httpx, over HTTP/1.1 or HTTP/2: `httpx_client.py SCENARIO http1|http2 ADDRESS [ARGUMENT...]`."""

import asyncio
import hashlib
import sys

import httpx

from common import say


def client(version):
    return httpx.Client(http1=version == "http1", http2=version == "http2", timeout=10, trust_env=False)


def tell(response):
    body = response.content
    line = response.json() if response.headers.get("content-type", "").startswith("application/json") else None
    say(
        status=response.status_code, version=response.http_version, headers=[[n, v] for n, v in response.headers.multi_items()],
        length=len(body), sha256=hashlib.sha256(body).hexdigest(), body=body[:2000].decode("latin-1"), json=line,
    )


def parts(size, of=30_000):
    data = bytes(range(251)) * (size // 251 + 1)
    for start in range(0, size, of):
        yield data[start : min(start + of, size)]


def get(version, to, path, *headers):
    with client(version) as one:
        tell(one.get(f"http://{to}{path}", headers=[tuple(h.split(": ", 1)) for h in headers]))


def iterator(version, to, path, count):
    """Uploads whose length is unknown."""
    with client(version) as one:
        for _ in range(int(count)):
            tell(one.post(f"http://{to}{path}", content=iter([b"hel", b"lo"])))


def upload(version, to, path, size):
    with client(version) as one:
        tell(one.post(f"http://{to}{path}", content=parts(int(size))))


def upload_of_length(version, to, path, size):
    with client(version) as one:
        tell(one.post(f"http://{to}{path}", content=b"".join(parts(int(size)))))


def many(version, to, path, count):
    """Uploads of a length that is unknown, and downloads, many at a time."""

    async def work():
        async def body(number):
            for _ in range(number % 4):
                yield b"%08d" % number

        limits = httpx.Limits(max_connections=20)
        async with httpx.AsyncClient(http1=version == "http1", http2=version == "http2", timeout=10, trust_env=False, limits=limits) as one:

            async def request(number):
                response = await one.post(f"http://{to}{path}?{number}", content=body(number))
                line = response.json() if response.status_code == 200 else {}
                right = line and line["length"] == 8 * (number % 4) and line["target"] == f"{path}?{number}"
                return right or say(wrong=response.status_code, body=response.text)

            return sum(map(bool, await asyncio.gather(*(request(number) for number in range(int(count))))))

    say(right=asyncio.run(work()))


def download(version, to, path):
    with client(version) as one:
        digest, length = hashlib.sha256(), 0
        with one.stream("GET", f"http://{to}{path}") as response:
            for part in response.iter_bytes():
                digest.update(part)
                length += len(part)
        say(status=response.status_code, length=length, sha256=digest.hexdigest())


def query(version, to, path, name, value):
    """A query parameter, encoded as httpx does."""
    with client(version) as one:
        tell(one.get(f"http://{to}{path}", params={name: value}))


def call_web(version, to, path, kind):
    """A gRPC-Web call with one message."""
    with client(version) as one:
        tell(one.post(f"http://{to}{path}", content=b"\0\0\0\0\5hello", headers={"content-type": kind, "x-grpc-web": "1"}))


def events(version, to):
    """Server-sent events: the second is asked for when the first has come."""
    with client(version) as one, one.stream("GET", f"http://{to}/events") as response:
        lines = response.iter_lines()
        first = next(lines)
        with client(version) as other:
            other.get(f"http://{to}/release")
        say(first=first, rest=[line for line in lines if line])


def connections(to, path, count):
    """Requests on a connection of their own each, over HTTP/1.1 and HTTP/2 by turns."""
    statuses = {}
    for number in range(int(count)):
        with client("http2" if number % 2 else "http1") as one:
            response = one.get(f"http://{to}{path}")
        key = f"{response.http_version} {response.status_code}"
        statuses[key] = statuses.get(key, 0) + 1
    say(statuses=statuses)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
