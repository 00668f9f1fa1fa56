"""What the scripts share: lines of JSON on standard output, and an end with their parent."""

import json
import os
import socket
import sys
import threading

_lock = threading.Lock()


def say(**line):
    """Prints one line of JSON."""
    with _lock:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def listen():
    """A socket that listens on a free port."""
    return socket.create_server(("127.0.0.1", 0), backlog=512)


def end_with_parent():
    """Ends the process when its standard input is closed: when the test has ended, however it did."""

    def wait():
        while sys.stdin.buffer.read1(4096):
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)
