"""A way of that many milliseconds in each direction to a target: `distance.py ADDRESS MILLISECONDS`."""

import queue
import socket
import sys
import threading
import time

from common import address, end_with_parent, listen, say


def carry(source, to, delay):
    """What is read is written that much later."""
    under_way = queue.SimpleQueue()

    def arrive():
        while True:
            due, part = under_way.get()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if not part:
                    return to.shutdown(socket.SHUT_WR)
                to.sendall(part)
            except OSError:
                return None

    threading.Thread(target=arrive, daemon=True).start()
    part = b"-"
    while part:
        try:
            part = source.recv(65536)
        except OSError:
            part = b""
        under_way.put((time.monotonic() + delay, part))


end_with_parent()
target, delay = address(sys.argv[1]), int(sys.argv[2]) / 1000
listener = listen()
say(port=listener.getsockname()[1])
while True:
    near, _ = listener.accept()
    far = socket.create_connection(target)
    for one in (near, far):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=carry, args=(near, far, delay), daemon=True).start()
    threading.Thread(target=carry, args=(far, near, delay), daemon=True).start()
