"""A gRPC server on grpcio: `test.Echo` with a method of each kind, bytes as messages."""

from concurrent import futures

import grpc

from common import end_with_parent, say


def unary(request, context):
    say(method="unary", length=len(request), remaining=context.time_remaining())
    context.set_trailing_metadata((("x-trailer", "t"), ("x-bin-bin", b"\x00\xff")))
    if request.startswith(b"fail:"):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as told: ümlaut")
    if request == b"wait":
        ended = context.add_callback(lambda: say(method="unary", ended=True))
        say(method="unary", waiting=True, added=ended)
        futures.Future().result(timeout=20)
    return b"reply:" + request


def server_stream(request, context):
    context.add_callback(lambda: say(method="server_stream", ended=True))
    for number in range(int(request)):
        yield b"part %d" % number
    if request == b"1":
        # Waits until it is cancelled.
        done = futures.Future()
        context.add_callback(lambda: done.set_result(None))
        done.result(timeout=20)


def client_stream(requests, context):
    return b"|".join(requests)


def bidi(requests, context):
    for request in requests:
        yield b"reply:" + request


end_with_parent()
server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", 16 << 20)])
handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
say(port=server.add_insecure_port("127.0.0.1:0"))
server.start()
server.wait_for_termination()
