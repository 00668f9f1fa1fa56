"""The service of conf/examples/protos/books.proto on grpcio, with the classes that protoc makes of it."""

import importlib
import os
import sys
import tempfile
from concurrent import futures

import google.api
import grpc
from google.protobuf import any_pb2, json_format
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection
from grpc_tools import protoc

from common import end_with_parent, say

protos = sys.argv[1]
made = tempfile.mkdtemp()
common = os.path.dirname(os.path.dirname(list(google.api.__path__)[0]))
bundled = os.path.join(os.path.dirname(protoc.__file__), "_proto")
arguments = ["protoc", f"-I{protos}", f"-I{common}", f"-I{bundled}", f"--python_out={made}", f"--grpc_python_out={made}"]
# What a user makes for descriptor_sets.
arguments += ["--include_imports", f"--descriptor_set_out={sys.argv[2]}"] if len(sys.argv) > 2 else []
assert protoc.main([*arguments, "books.proto"]) == 0
sys.path.insert(0, made)
books_pb2 = importlib.import_module("books_pb2")
books_pb2_grpc = importlib.import_module("books_pb2_grpc")


class Library(books_pb2_grpc.LibraryServicer):
    def GetBook(self, request, context):
        say(method="GetBook", request=json_format.MessageToDict(request), remaining=context.time_remaining())
        if request.name.endswith("/0"):
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.ResourceInfo(resource_type="book", resource_name=request.name))
            status = status_pb2.Status(code=5, message="no such book: ü", details=[detail])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.NOT_FOUND, "no such book: ü")
        context.set_trailing_metadata((("x-shelf", "1"),))
        book = books_pb2.Book(name=request.name, title="Émile", pages=9007199254740993)
        book.printed_at.FromJsonString("2026-01-31T12:00:00.5Z")
        return book

    def ListBooks(self, request, context):
        for number in range(3):
            yield books_pb2.Book(name=f"{request.parent}/books/{number}", title=request.prefix)
        if request.prefix == "fail":
            context.abort(grpc.StatusCode.DATA_LOSS, "the rest is lost")

    def UpdateBook(self, request, context):
        say(method="UpdateBook", request=json_format.MessageToDict(request))
        return request.book


end_with_parent()
server = grpc.server(futures.ThreadPoolExecutor(8))
books_pb2_grpc.add_LibraryServicer_to_server(Library(), server)
names = (books_pb2.DESCRIPTOR.services_by_name["Library"].full_name, reflection.SERVICE_NAME)
reflection.enable_server_reflection(names, server)
say(port=server.add_insecure_port("127.0.0.1:0"))
server.start()
server.wait_for_termination()
