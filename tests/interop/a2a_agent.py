"""An agent of the official Python A2A SDK on all three bindings: a stranger to Muster.

usage: a2a_agent.py GRPC_PORT HTTP_PORT

It does what the text of a message says:

    echo WORDS      completes with the words as an artifact
    ask             asks back, and completes with the next message
    wait NAME       works until it is canceled, or released by that name
    count N NAME    waits to be released by that name, reports N steps, completes
    release NAME    lets the others of that name go on

JSON-RPC is at /jsonrpc, HTTP+JSON at /rest; /ready answers once all of them do.
"""

import asyncio
import sys
from collections import defaultdict

import grpc.aio
import httpx
import uvicorn
from a2a.helpers.proto_helpers import get_message_text, new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler, GrpcHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import (
    BasePushNotificationSender,
    InMemoryPushNotificationConfigStore,
    InMemoryTaskStore,
    TaskUpdater,
)
from a2a.types.a2a_pb2 import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Part
from a2a.types.a2a_pb2_grpc import add_A2AServiceServicer_to_server
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


class Executor(AgentExecutor):
    def __init__(self):
        self.gates = defaultdict(asyncio.Event)

    async def execute(self, context, event_queue):
        if context.current_task is None:
            await event_queue.enqueue_event(new_task_from_user_message(context.message))
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.start_work()
        match get_message_text(context.message).split():
            case ["ask"]:
                await updater.requires_input()
                return
            case ["wait", name]:
                await self.gates[name].wait()
            case ["count", steps, name]:
                await self.gates[name].wait()
                for step in range(1, int(steps) + 1):
                    await updater.start_work(updater.new_agent_message([Part(text=f"step {step}")]))
            case ["release", name]:
                self.gates[name].set()
            case words:
                words = " ".join(words).removeprefix("echo ")
                await updater.add_artifact([Part(text=words)], name="echo")
        await updater.complete()

    async def cancel(self, context, event_queue):
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def card(grpc_port, http_port, *more_skills):
    web = f"http://127.0.0.1:{http_port}"
    ways = [(f"127.0.0.1:{grpc_port}", "GRPC"), (f"{web}/jsonrpc", "JSONRPC"), (f"{web}/rest", "HTTP+JSON")]
    return AgentCard(
        name="Stranger",
        description="An agent of the official Python SDK",
        version="1.0.0",
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding=binding, protocol_version="1.0") for url, binding in ways
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=True, extended_agent_card=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[
            AgentSkill(id="stranger_echo", name="Echo", description="Says it again", tags=["test"]),
            *more_skills,
        ],
    )


async def main(grpc_port, http_port):
    own = card(grpc_port, http_port)
    hidden = AgentSkill(id="hide", name="Hide", description="Is for friends", tags=["test"])
    configs = InMemoryPushNotificationConfigStore()
    handler = DefaultRequestHandler(
        agent_executor=Executor(),
        task_store=InMemoryTaskStore(),
        agent_card=own,
        extended_agent_card=card(grpc_port, http_port, hidden),
        push_config_store=configs,
        push_sender=BasePushNotificationSender(httpx.AsyncClient(), configs),
        validate_input_modes=True,
    )
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
