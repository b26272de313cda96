"""An agent of the official Python A2A SDK on all three bindings: a stranger to Muster.

usage: a2a_agent.py GRPC_PORT HTTP_PORT

`echo WORDS` completes with the words as an artifact; `ask` asks back, and completes with the next message; `wait` works
until it is canceled. JSON-RPC is at /jsonrpc, HTTP+JSON at /rest; /ready answers once all of them do.
"""

import asyncio
import sys

import grpc.aio
import uvicorn
from a2a.helpers.proto_helpers import get_message_text, new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler, GrpcHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types.a2a_pb2 import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Part
from a2a.types.a2a_pb2_grpc import add_A2AServiceServicer_to_server
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


class Executor(AgentExecutor):
    async def execute(self, context, event_queue):
        if context.current_task is None:
            await event_queue.enqueue_event(new_task_from_user_message(context.message))
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.start_work()
        text = get_message_text(context.message)
        if text == "wait":
            await asyncio.Event().wait()  # Until it is canceled.
        elif text == "ask":
            await updater.requires_input()
        else:
            await updater.add_artifact([Part(text=text.removeprefix("echo "))], name="echo")
            await updater.complete()

    async def cancel(self, context, event_queue):
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def card(grpc_port, http_port):
    web = f"http://127.0.0.1:{http_port}"
    ways = [(f"127.0.0.1:{grpc_port}", "GRPC"), (f"{web}/jsonrpc", "JSONRPC"), (f"{web}/rest", "HTTP+JSON")]
    return AgentCard(
        name="Stranger",
        description="An agent of the official Python SDK",
        version="1.0.0",
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding=binding, protocol_version="1.0") for url, binding in ways
        ],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="stranger_echo", name="Echo", description="Says it again", tags=["test"])],
    )


async def main(grpc_port, http_port):
    own = card(grpc_port, http_port)
    handler = DefaultRequestHandler(agent_executor=Executor(), task_store=InMemoryTaskStore(), agent_card=own)
    server = grpc.aio.server()
    add_A2AServiceServicer_to_server(GrpcHandler(handler), server)
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    await server.start()
    routes = [
        Route("/ready", lambda _: PlainTextResponse("ready")),
        *create_agent_card_routes(own),
        *create_jsonrpc_routes(handler, "/jsonrpc"),
        *create_rest_routes(handler, path_prefix="/rest"),
    ]
    config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=int(http_port), log_level="warning")
    await uvicorn.Server(config).serve()


asyncio.run(main(*sys.argv[1:]))
