"""A client on grpcio: `grpc_client.py SCENARIO ADDRESS [name: value ...]`; prints a line for each call."""

import sys
import threading

import grpc

from common import say


def pairs(headers):
    return [tuple(h.split(": ", 1)) for h in headers]


def channel(to):
    return grpc.insecure_channel(to, options=[("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 16 << 20)])


def outcome(name, call):
    """Prints what became of a call."""
    try:
        result = call()
        say(call=name, code="OK", **result)
    except grpc.RpcError as error:
        say(call=name, code=error.code().name, details=error.details(), trailing=[[k, str(v)] for k, v in error.trailing_metadata() or ()])


def rejections(to, size, *headers):
    """One call of each kind, with messages of that size."""
    message, metadata = b"m" * int(size), pairs(headers)

    def unary():
        return {"reply": one.unary_unary("/test.Echo/Unary")(message, timeout=5, metadata=metadata).decode()[:100]}

    def server_stream():
        return {"replies": len(list(one.unary_stream("/test.Echo/ServerStream")(message, timeout=5, metadata=metadata)))}

    def client_stream():
        return {"reply": one.stream_unary("/test.Echo/ClientStream")(iter([message] * 3), timeout=5, metadata=metadata).decode()[:100]}

    def bidi():
        return {"replies": len(list(one.stream_stream("/test.Echo/Bidi")(iter([message] * 3), timeout=5, metadata=metadata)))}

    with channel(to) as one:
        for name, call in (("unary", unary), ("server_stream", server_stream), ("client_stream", client_stream), ("bidi", bidi)):
            outcome(name, call)


def works(to):
    with channel(to) as one:
        unary = one.unary_unary("/test.Echo/Unary")

        def plain():
            reply, call = unary.with_call(b"hello", timeout=5)
            return {"reply": reply.decode(), "trailing": sorted([k, str(v)] for k, v in call.trailing_metadata())}

        def turns():
            """Each message is sent when the reply to the one before has come."""
            go, replies = threading.Semaphore(1), []

            def messages():
                for number in range(5):
                    go.acquire(timeout=5)
                    yield b"%d" % number

            for reply in one.stream_stream("/test.Echo/Bidi")(messages(), timeout=5):
                replies.append(reply.decode())
                go.release()
            return {"replies": replies}

        def cancelled():
            call = one.unary_stream("/test.Echo/ServerStream")(b"1", timeout=5)
            next(call)
            call.cancel()
            return {"replies": len(list(call))}

        outcome("unary", plain)
        outcome("server_stream", lambda: {"replies": [r.decode() for r in one.unary_stream("/test.Echo/ServerStream")(b"3", timeout=5)]})
        outcome("client_stream", lambda: {"reply": one.stream_unary("/test.Echo/ClientStream")(iter([b"a", b"b", b"c"]), timeout=5).decode()})
        outcome("bidi", turns)
        outcome("large", lambda: {"length": len(unary(b"x" * 3_000_000, timeout=5))})
        outcome("empty", lambda: {"replies": len(list(one.unary_stream("/test.Echo/ServerStream")(b"0", timeout=5)))})
        outcome("status", lambda: {"reply": unary(b"fail:", timeout=5).decode()})
        outcome("deadline", lambda: {"reply": unary(b"wait", timeout=0.5).decode()})
        outcome("cancelled", cancelled)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
