"""WebSockets by the package websockets: `server` prints its port and serves, `client URL` sends what it reads."""

import asyncio
import json
import sys

import websockets


async def serve():
    async def reply(socket):
        async for message in socket:
            await socket.send(message.upper() if isinstance(message, str) else message[::-1])

    async with websockets.serve(reply, "127.0.0.1", 0) as server:
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        await asyncio.get_running_loop().create_future()


async def ask(url):
    async with websockets.connect(url) as socket:
        for text in ["one", "two " * 5000, "größe"]:
            await socket.send(text)
            print(json.dumps({"sent": len(text), "got": await socket.recv()}), flush=True)
        pong = await socket.ping()
        await pong
        await socket.send("x" * 200_000)
        try:
            await socket.recv()
        except websockets.ConnectionClosed as closed:
            print(json.dumps({"closed": closed.rcvd.code}), flush=True)


if sys.argv[1] == "server":
    asyncio.run(serve())
else:
    asyncio.run(ask(sys.argv[2]))
