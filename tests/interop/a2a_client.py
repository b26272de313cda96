"""The official Python A2A client against two of our agents, directly or through the router.

usage: a2a_client.py WEATHER_URL HELPDESK_URL BINDING      BINDING: GRPC | JSONRPC | HTTP+JSON

Resolves the agents' cards below their URLs, then sends, streams, gets, lists and cancels over the binding, with nothing of
Muster's own. Prints one JSON object; any deviation is an exception and a non-zero exit code.
"""

import asyncio
import json
import sys

import grpc.aio
import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.helpers.proto_helpers import get_data_parts, get_message_text, new_data_message, new_text_message
from a2a.types.a2a_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Role,
    SendMessageRequest,
    TaskState,
)


def check(condition, what):
    if not condition:
        raise AssertionError(what)


async def final(events):
    """The last task snapshot of an answer and the kinds of events that came."""
    kinds, task, state, artifacts = [], None, None, []
    async for event in events:
        kind = event.WhichOneof("payload")
        kinds.append(kind)
        if kind == "task":
            task, state = event.task, event.task.status.state
            artifacts.extend(event.task.artifacts)
        elif kind == "status_update":
            state = event.status_update.status.state
        elif kind == "artifact_update":
            artifacts.append(event.artifact_update.artifact)
    return kinds, task, state, artifacts


async def main(weather, helpdesk, binding):
    async with httpx.AsyncClient(timeout=30) as http:
        card = await A2ACardResolver(http, weather).get_agent_card()
        check(card.name, "the agent's card has a name")
        check(any(skill.id == "weather_forecasting" for skill in card.skills), "the card lists the skill")
        bindings = {interface.protocol_binding for interface in card.supported_interfaces}
        check(binding in bindings, f"the card offers {binding}, not only {bindings}")

        def client(streaming, of=card):
            config = ClientConfig(
                streaming=streaming,
                httpx_client=http,
                grpc_channel_factory=grpc.aio.insecure_channel,
                supported_protocol_bindings=[binding],
            )
            return ClientFactory(config).create(of)

        question = "Seattle 2014-03-01 to 2014-03-05"
        unary = client(streaming=False)
        request = SendMessageRequest(message=new_text_message(question, role=Role.ROLE_USER))
        kinds, task, state, artifacts = await final(unary.send_message(request))
        check(kinds == ["task"], f"one task, not {kinds}")
        check(state == TaskState.TASK_STATE_COMPLETED, f"completed, not {TaskState.Name(state)}")
        data = get_data_parts(artifacts[0].parts)[0]
        days = [day["date"] for day in data["days"]]
        check(days == [f"2014-03-0{day}" for day in range(1, 6)], f"five days, not {days}")

        got = await unary.get_task(GetTaskRequest(id=task.id))
        check(got.id == task.id and got.status.state == state, "GetTask finds the task")
        listed = await unary.list_tasks(ListTasksRequest(page_size=10))
        check(task.id in [found.id for found in listed.tasks], "ListTasks finds the task")

        streaming = client(streaming=True)
        request = SendMessageRequest(message=new_text_message(question, role=Role.ROLE_USER))
        kinds, streamed, state, artifacts = await final(streaming.send_message(request))
        check(kinds[0] == "task", f"a stream begins with the task, not {kinds}")
        check(state == TaskState.TASK_STATE_COMPLETED, f"completed, not {TaskState.Name(state)}")
        check(artifacts, "the stream carries the artifact")

        # A question that the agent answers with a question stays open, so it can be cancelled.
        service = await A2ACardResolver(http, helpdesk).get_agent_card()
        clerk = client(streaming=False, of=service)
        unclear = new_data_message({"question": "zzz qqq xxyyzz"}, role=Role.ROLE_USER)
        _, open_task, state, _ = await final(clerk.send_message(SendMessageRequest(message=unclear)))
        check(state == TaskState.TASK_STATE_INPUT_REQUIRED, f"asks back, not {TaskState.Name(state)}")
        check(get_message_text(open_task.status.message), "says what it needs")
        cancelled = await clerk.cancel_task(CancelTaskRequest(id=open_task.id))
        check(cancelled.status.state == TaskState.TASK_STATE_CANCELED, "CancelTask cancels")

        print(json.dumps({"binding": binding, "task": task.id, "stream": kinds, "cancelled": open_task.id}))


asyncio.run(main(*sys.argv[1:]))
