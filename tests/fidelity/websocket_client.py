"""Says things over a WebSocket and expects to hear them again. websocket_client.py URL"""

import asyncio
import os
import sys

from websockets.asyncio.client import connect


async def main():
    async with connect(sys.argv[1], max_size=None, compression=None, proxy=None) as socket:
        for message in ("hello", "", "ü" * 1000, bytes(range(256)), os.urandom(1 << 20)):
            await socket.send(message)
            assert await socket.recv() == message, message[:20]
        await socket.send(["in", " three", " fragments"])
        assert await socket.recv() == "in three fragments"
        await asyncio.wait_for(await socket.ping(), 10)
        for number in range(500):
            await socket.send(str(number))
        for number in range(500):
            assert await socket.recv() == str(number)
        await socket.close(4001, "enough")
    assert socket.close_code == 4001, socket.close_code
    print("all echoed")


asyncio.run(main())
