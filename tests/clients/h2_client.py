"""A client on python h2 that also notes every frame that it gets.

`h2_client.py SCENARIO ADDRESS [ARGUMENT...]`; each scenario prints a line for each stream.
"""

import json
import socket
import sys

import h2.config
import h2.connection
import h2.events
import hpack
from hyperframe.frame import DataFrame, HeadersFrame

from common import address, say

TYPES = ["DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION"]


class Stream:
    def __init__(self, number):
        self.number, self.informational, self.status, self.headers = number, [], None, []
        self.body, self.trailers, self.reset, self.ended, self.frames = b"", None, None, False, []

    @property
    def over(self):
        return self.ended or self.reset is not None

    def say(self, **more):
        say(
            stream=self.number, status=self.status, headers=self.headers, informational=self.informational, reset=self.reset,
            body=self.body[:5000].decode("latin-1"), length=len(self.body), trailers=self.trailers, ended=self.ended,
            frames=self.frames, **more,
        )


class Client:
    """One connection."""

    def __init__(self, to):
        self.to = to
        self.socket = socket.create_connection(address(to), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        # Python h2 allows itself the default window of the connection; responses of any length fit in.
        self.h2.increment_flow_control_window(1 << 24)
        self.streams, self.raw, self.pongs, self.goaway, self.settings = {}, b"", 0, None, False
        self.ended_by = None
        self.flush()
        # The server's settings first: nothing that is sent later depends on when they come.
        while not self.settings:
            self.read()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def head(self, method, path, *more, scheme="http"):
        return [(":method", method), (":scheme", scheme), (":authority", self.to), (":path", path), *more]

    def open(self, method, path, *more, end=False, flush=True):
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, self.head(method, path, *more), end_stream=end)
        stream = self.streams[number] = Stream(number)
        if flush:
            self.flush()
        return stream

    def data(self, stream, data, end=False, flush=True):
        """Sends as the windows allow, reading meanwhile; stops when the stream is over."""
        at = 0
        while not stream.over:
            room = min(self.h2.local_flow_control_window(stream.number), self.h2.max_outbound_frame_size)
            part = data[at : at + room]
            if part or not data:
                at += len(part)
                self.h2.send_data(stream.number, part, end_stream=end and at == len(data))
                if flush:
                    self.flush()
            if at >= len(data):
                return
            if room == 0:
                self.read()

    def read(self):
        try:
            part = self.socket.recv(65536)
        except TimeoutError:
            part = b""
        if not part:
            for stream in self.streams.values():
                stream.say(hangs=True, goaway=self.goaway)
            raise SystemExit("it hangs, or is closed")
        self.note(part)
        for event in self.h2.receive_data(part):
            self.take(event)
        self.flush()

    def take(self, event):
        stream = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.settings = True
        elif isinstance(event, h2.events.PingAckReceived):
            self.pongs += 1
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = int(event.error_code)
        elif stream is None:
            pass
        elif isinstance(event, h2.events.InformationalResponseReceived):
            headers = dict(event.headers)
            stream.informational.append({"status": int(headers[":status"]), "link": headers.get("link")})
        elif isinstance(event, h2.events.ResponseReceived):
            stream.status, stream.headers = int(dict(event.headers)[":status"]), [[n, v] for n, v in event.headers]
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data
            if event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = [[n, v] for n, v in event.headers]
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = int(event.error_code)

    def note(self, part):
        """Notes the frames of each stream, as HEADERS, DATA+END_STREAM, RST_STREAM(8)."""
        self.raw += part
        while len(self.raw) >= 9:
            length = int.from_bytes(self.raw[:3], "big")
            if len(self.raw) < 9 + length:
                return
            kind, flags, number = self.raw[3], self.raw[4], int.from_bytes(self.raw[5:9], "big") & 0x7FFFFFFF
            payload, self.raw = self.raw[9 : 9 + length], self.raw[9 + length :]
            name = TYPES[kind] if kind < len(TYPES) else str(kind)
            if name == "GOAWAY":
                self.ended_by = int.from_bytes(payload[4:8], "big")
            if name == "RST_STREAM":
                name += f"({int.from_bytes(payload, 'big')})"
            if name in ("DATA", "HEADERS") and flags & 1:
                name += "+END_STREAM"
            if number in self.streams and kind != 8:
                self.streams[number].frames.append(name)

    def wait(self, *streams):
        """Waits for the ends of the streams, and for what is sent after an end."""
        while not all(stream.over for stream in streams):
            self.read()
        self.ping()

    def ping(self):
        before = self.pongs
        self.h2.ping(b"portcull")
        self.flush()
        while self.pongs == before and self.goaway is None:
            self.read()

    def raw_request(self, number, head, data=(), trailers=None, end=True):
        """Frames made by hand, that python h2 would not send: its state machine sees nothing of the sending."""
        encoder = self.__dict__.setdefault("encoder", hpack.Encoder())
        last = HeadersFrame(number, encoder.encode(head), flags=["END_HEADERS"])
        frames = [last]
        for part in data:
            frames.append(last := DataFrame(number, part))
        if trailers is not None:
            frames.append(last := HeadersFrame(number, encoder.encode(trailers), flags=["END_HEADERS"]))
        if end:
            last.flags.add("END_STREAM")
        self.socket.sendall(b"".join(frame.serialize() for frame in frames))


class Malformed:
    """A connection whose requests are made by hand and whose responses are only noted as frames."""

    def __init__(self, to):
        self.client = Client(to)
        self.next = 1

    def send(self, head, **more):
        number, self.next = self.next, self.next + 2
        stream = self.client.streams[number] = Stream(number)
        self.client.raw_request(number, self.client.head("POST", *head), **more)
        return stream

    def wait(self, stream):
        """Until a frame that ends the stream, or the connection."""
        client = self.client
        while not any("END_STREAM" in f or f.startswith("RST") for f in stream.frames):
            part = client.socket.recv(65536)
            if not part:
                break
            client.note(part)
        # And what follows an end, up to the response to a PING.
        client.socket.sendall(b"\0\0\x08\x06\0\0\0\0\0after it")
        seen = b""
        while b"after it" not in seen:
            part = client.socket.recv(65536)
            if not part:
                break
            seen += part
            client.note(part)
        for frame in stream.frames:
            if frame.startswith("RST_STREAM("):
                stream.reset = int(frame[11:-1])
        # An endpoint may take a stream error for one of the connection (RFC 9113 §5.4).
        stream.say(goaway=client.ended_by)


def get(to, path, *headers):
    client = Client(to)
    stream = client.open("GET", path, *pairs(headers), end=True)
    client.wait(stream)
    stream.say()


def request(to, method, path, *headers):
    client = Client(to)
    stream = client.open(method, path, *pairs(headers), end=True)
    client.wait(stream)
    stream.say()


def pairs(headers):
    """`name: value` or, to keep a field apart from its like, a field of its own each."""
    return [tuple(h.split(": ", 1)) for h in headers]


def upload_with_empty_end(to, path, count="1"):
    """HEADERS, DATA, and an empty DATA with END_STREAM, each in a write of its own."""
    client = Client(to)
    for _ in range(int(count)):
        stream = client.open("POST", path)
        client.data(stream, b"hello")
        # The DATA is on its way to the target, or there, when the end comes.
        client.ping()
        client.data(stream, b"", end=True)
        client.wait(stream)
        stream.say()


def upload_at_once(to, path, count="1"):
    """The same frames in one write."""
    client = Client(to)
    for _ in range(int(count)):
        stream = client.open("POST", path, flush=False)
        client.data(stream, b"hello", flush=False)
        client.data(stream, b"", end=True)
        client.wait(stream)
        stream.say()


def upload_of_nothing(to, path, count="1"):
    """HEADERS, and only the empty DATA with END_STREAM."""
    client = Client(to)
    for number in range(int(count)):
        stream = client.open("POST", path, flush=number % 2 == 0)
        if number % 2 == 0:
            client.ping()
        client.data(stream, b"", end=True)
        client.wait(stream)
        stream.say()


def uploads_and_others(to, path, count):
    """An upload, and at once a request of another client, again and again."""
    one, other = Client(to), Client(to)
    for _ in range(int(count)):
        upload = one.open("POST", path)
        one.data(upload, b"hello")
        one.ping()
        one.data(upload, b"", end=True)
        while not upload.over:
            one.read()
        next_one = other.open("GET", "/next", end=True)
        while not next_one.over:
            other.read()
        say(upload=upload.status, next=next_one.status)


def upload_of_length(to, path, length):
    """A body of a declared length whose end comes in an empty DATA."""
    client = Client(to)
    stream = client.open("POST", path, ("content-length", length))
    client.data(stream, b"x" * int(length))
    client.ping()
    client.data(stream, b"", end=True)
    client.wait(stream)
    stream.say()


def upload_with_trailers(to, path):
    client = Client(to)
    stream = client.open("POST", path, ("te", "trailers"))
    client.data(stream, b"hello")
    client.h2.send_headers(stream.number, [("x-sum", "42")], end_stream=True)
    client.flush()
    client.wait(stream)
    stream.say()


def cookies(to, path):
    client = Client(to)
    stream = client.open("GET", path, ("cookie", "a=1"), ("cookie", "b=2"), ("x-between", "1"), ("cookie", "c=3"), end=True)
    client.wait(stream)
    stream.say()


def grpc(to, path, kind, size, *headers):
    """A call with one message of that size, as grpcio's frames: HEADERS, DATA+END_STREAM."""
    client = Client(to)
    stream = client.open("POST", path, ("content-type", kind), ("te", "trailers"), *pairs(headers))
    size = int(size)
    client.data(stream, b"\0" + size.to_bytes(4, "big") + b"m" * size, end=True)
    client.wait(stream)
    stream.say()


def malformed(to, kind, path):
    """A request that RFC 9113 calls malformed."""
    client = Malformed(to)
    if kind == "data_after_length_0":
        stream = client.send((path, ("content-length", "0")), data=[b"hello"])
    elif kind == "longer_than_body":
        stream = client.send((path, ("content-length", "10")), data=[b"hello"])
    elif kind == "longer_than_no_body":
        stream = client.send((path, ("content-length", "10")))
    elif kind == "longer_than_empty_data":
        stream = client.send((path, ("content-length", "10")), data=[b""])
    elif kind == "shorter_than_body":
        stream = client.send((path, ("content-length", "3")), data=[b"hello"])
    elif kind == "shorter_than_parts":
        stream = client.send((path, ("content-length", "7")), data=[b"hello", b"hello"])
    elif kind == "pseudo_header_in_trailers":
        stream = client.send((path,), data=[b"hello"], trailers=[(":path", "/other"), ("x-sum", "42")])
    elif kind == "status_in_trailers":
        stream = client.send((path,), data=[b"hello"], trailers=[(":status", "200")])
    elif kind == "pseudo_header_after_field":
        stream = client.send((path, ("x-a", "1"), (":path", "/other")), data=[b"hello"])
    elif kind == "upper_case":
        stream = client.send((path, ("X-Upper", "1")), data=[b"hello"])
    elif kind == "connection_field":
        stream = client.send((path, ("connection", "keep-alive")), data=[b"hello"])
    elif kind == "transfer_encoding":
        stream = client.send((path, ("transfer-encoding", "chunked")), data=[b"hello"])
    elif kind == "te_of_another_kind":
        stream = client.send((path, ("te", "gzip")), data=[b"hello"])
    elif kind == "two_lengths":
        stream = client.send((path, ("content-length", "5"), ("content-length", "6")), data=[b"hello"])
    elif kind == "length_of_letters":
        stream = client.send((path, ("content-length", "5x")), data=[b"hello"])
    client.wait(stream)


def cancelled_uploads(to, path, count, then):
    """Uploads that are reset while their data are under way, and one more on the same connection."""
    client = Client(to)
    for _ in range(int(count)):
        stream = client.open("POST", path)
        # As much as the stream's window takes at once, and RST_STREAM right behind it.
        room = client.h2.local_flow_control_window(stream.number)
        while room > 0:
            part = min(room, client.h2.max_outbound_frame_size)
            client.h2.send_data(stream.number, b"x" * part)
            room -= part
        client.h2.reset_stream(stream.number, 8)
        client.flush()
    client.ping()
    stream = client.open("POST", then)
    client.data(stream, b"y" * 300_000, end=True)
    client.wait(stream)
    stream.say()


def windows(to, path, count, then):
    """As cancelled_uploads, but each is reset only when its window is used up and nothing more is read of it."""
    client = Client(to)
    for _ in range(int(count)):
        stream = client.open("POST", path)
        sent = stalled = 0
        while sent < 8 << 20 and not stream.over:
            room = min(client.h2.local_flow_control_window(stream.number), client.h2.max_outbound_frame_size)
            if room == 0:
                # Whether more is read of it: many turns later, nothing has been.
                if stalled == 30:
                    break
                client.ping()
                stalled += 1
                continue
            stalled = 0
            client.h2.send_data(stream.number, b"x" * room)
            client.flush()
            sent += room
        client.h2.reset_stream(stream.number, 8)
        client.flush()
    client.ping()
    stream = client.open("POST", then)
    client.data(stream, b"y" * 300_000, end=True)
    client.wait(stream)
    stream.say()


def hold_uploads(to, path, count):
    """Uploads of unknown length over the limit, on connections of their own, all at a time."""
    clients = [Client(to) for _ in range(int(count))]
    opened = []
    for client in clients:
        stream = client.open("POST", path)
        client.data(stream, b"x" * 20_000)
        opened.append((client, stream))
    for client, stream in opened:
        client.wait(stream)
        stream.say()


def wait_for_hints(to, path):
    """Prints the 103 as soon as it is there, asks for the rest on another connection, and prints that."""
    client = Client(to)
    stream = client.open("GET", path, end=True)
    while not stream.informational and not stream.over:
        client.read()
    if stream.informational:
        other = Client(to)
        other.wait(other.open("GET", "/release", end=True))
    client.wait(stream)
    stream.say()


def expect_continue(to, path):
    """Sends the body when the 100 has come."""
    client = Client(to)
    stream = client.open("POST", path, ("expect", "100-continue"), ("content-length", "5"))
    while not stream.informational and not stream.over:
        client.read()
    client.data(stream, b"hello", end=True)
    client.wait(stream)
    stream.say()


def cancel_upload(to, path):
    """Is reset when a part of the body is at the target; the connection goes on."""
    client = Client(to)
    stream = client.open("POST", path)
    client.data(stream, b"hello")
    client.ping()
    client.h2.reset_stream(stream.number, 8)
    client.flush()
    other = client.open("GET", "/next", end=True)
    client.wait(other)
    other.say()


def downloads(to, path, count):
    """That many at a time on one connection."""
    client = Client(to)
    streams = [client.open("GET", path, end=True, flush=False) for _ in range(int(count))]
    client.flush()
    client.wait(*streams)
    for stream in streams:
        say(status=stream.status, length=len(stream.body), ended=stream.ended, reset=stream.reset, frames=stream.frames[-3:])


def cancel_download(to, path):
    client = Client(to)
    stream = client.open("GET", path, end=True)
    while not stream.body and not stream.over:
        client.read()
    client.h2.reset_stream(stream.number, 8)
    client.flush()
    client.ping()
    stream.say()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
