"""A server of the official Python MCP package, for calls out of workflows.

usage: mcp_server.py PORT       streamable HTTP on 127.0.0.1:PORT/mcp
       mcp_server.py stdio      over standard input and output

Writes "cancelled" to the file named by MCP_TEST_LOG when a call of `slow` is cancelled.
"""

import asyncio
import os
import sys

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("interop")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("no such city")


@server.tool()
async def slow(context: Context) -> str:
    """Works until it is cancelled."""
    try:
        await context.report_progress(1, 3, "first of three")
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        with open(os.environ["MCP_TEST_LOG"], "a") as log:
            log.write("cancelled")
        raise
    return "done"


@server.prompt()
def review(code: str) -> str:
    """A prompt."""
    return f"Please review: {code}"


@server.resource("note://{name}")
def note(name: str) -> str:
    """A resource."""
    return f"about {name}"


if sys.argv[1] == "stdio":
    server.run("stdio")
else:
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
