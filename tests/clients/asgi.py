"""A small application on other people's servers: `uvicorn` (HTTP/1.1, h11) or `hypercorn` (h2c)."""

import asyncio
import hashlib
import json
import sys

from common import end_with_parent, listen, say


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    digest, length = hashlib.sha256(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            say(target=scope["path"], aborted=True)
            return
        digest.update(message.get("body", b""))
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    line = {
        "method": scope["method"], "target": scope["path"], "version": scope["http_version"],
        "headers": {n.decode(): v.decode() for n, v in scope["headers"]}, "length": length, "sha256": digest.hexdigest(),
    }
    say(**line)
    body = json.dumps(line).encode()
    if scope["path"] == "/download":
        size = int(scope["query_string"].split(b"=")[1])
        body = (bytes(range(251)) * (size // 251 + 1))[:size]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/octet-stream")]})
    for start in range(0, len(body), 65536):
        await send({"type": "http.response.body", "body": body[start : start + 65536], "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


end_with_parent()
listener = listen()
say(port=listener.getsockname()[1])
if sys.argv[1] == "uvicorn":
    import uvicorn

    config = uvicorn.Config(application, http="h11", log_level="error", timeout_keep_alive=60)
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
else:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind, config.loglevel, config.keep_alive_timeout = [f"fd://{listener.detach()}"], "ERROR", 60
    asyncio.run(serve(application, config, shutdown_trigger=asyncio.Event().wait))
