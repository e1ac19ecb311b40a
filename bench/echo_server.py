"""A bare grpc.aio server on uvloop: one method that answers any request with the same bytes. For `bench.front`.

python -m bench.echo_server BYTES; prints its port.
"""

import asyncio
import sys
from typing import Any

import grpc
import uvloop

METHOD = "/bench.Echo/Echo"


async def serve(size: int) -> None:
    """Serve until the process is ended."""
    answer = bytes(size)

    async def echo(request: bytes, context: Any) -> bytes:
        return answer

    server = grpc.aio.server()
    handlers = {METHOD.rpartition("/")[2]: grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
