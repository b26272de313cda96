"""A conversation of the official Python A2A client with an agent, directly or through the router: all that the client can do.

usage: a2a_conversation.py URL BINDING [PLAIN_URL STRICT_URL]      BINDING: GRPC | JSONRPC | HTTP+JSON

The agent whose card is below URL does what `a2a_agent.py` says; PLAIN_URL and STRICT_URL are of agents without optional
capabilities, and with a required extension. Prints one JSON object; any deviation is an exception and a non-zero exit code.

What the client of 1.3.0 cannot do: it asks for an extended card only where the capability is declared, so it never hears that
there is none; over gRPC it sends no version but its own.
"""

import asyncio
import json
import sys
import uuid
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import grpc.aio
import httpx
from a2a.client import A2ACardResolver, ClientCallContext, ClientConfig, ClientFactory
from a2a.helpers.proto_helpers import get_message_text
from a2a.types import a2a_pb2 as a2a
from a2a.utils import errors

REQUIRED_EXTENSION = "urn:example:required:v1"
PATIENCE = 30
COMPLETED = a2a.TaskState.TASK_STATE_COMPLETED


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def unique(what):
    return f"{what}-{uuid.uuid4()}"


def say(text, part=None, **about):
    """A request: a text, in a context or about a task."""
    message = a2a.Message(
        message_id=unique("m"), role=a2a.Role.ROLE_USER, parts=[part or a2a.Part(text=text)], **about
    )
    return a2a.SendMessageRequest(message=message)


async def task_of(client, request, **more):
    """The only event of an answer, which has to be a task."""
    events = [event async for event in client.send_message(request, **more)]
    check([event.WhichOneof("payload") for event in events] == ["task"], f"one task, not {events}")
    return events[0].task


def is_in(task, state):
    found = a2a.TaskState.Name(task.status.state)
    check(found == f"TASK_STATE_{state}", f"a task in {state}, not {task}")
    return task


async def refused(error, call, what):
    """The call ends with exactly this exception of the SDK."""
    try:
        answer = await call
    except errors.A2AError as raised:
        check(type(raised) is error, f"{what}: {error.__name__}, not {raised!r}")
        check(str(raised), f"{what}: says something")
        return
    raise AssertionError(f"{what}: {error.__name__}, but it is answered: {answer}")


async def first_of(events):
    async with aclosing(events):
        return await anext(events)


async def rest_of(events):
    return [event async for event in events]


class Webhook:
    """Where pushes go to: a server that keeps what it is sent."""

    def __init__(self):
        loop, taken = asyncio.get_running_loop(), asyncio.Queue()
        self.taken, self.told = taken, []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                loop.call_soon_threadsafe(taken.put_nowait, (self.path, dict(self.headers.items()), body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    async def hears(self, state, *paths):
        """Waits for a push that tells of a state to each of the paths; gives all that came until then."""
        missing = set(paths)
        while missing:
            push = await asyncio.wait_for(self.taken.get(), PATIENCE)
            self.told.append(push)
            path, _, body = push
            status = (body.get("statusUpdate") or body.get("task") or {}).get("status", {})
            if status.get("state") == state:
                missing.discard(path)
        return self.told


class Conversation:
    def __init__(self, card, http, binding):
        self.card, self.http, self.binding = card, http, binding
        self.unary, self.streaming = self.client(False), self.client(True)

    @classmethod
    async def at(cls, url, http, binding):
        card = await A2ACardResolver(http, url).get_agent_card()
        bindings = [interface.protocol_binding for interface in card.supported_interfaces]
        check(binding in bindings, f"the card offers {binding}, not only {bindings}")
        return cls(card, http, binding)

    def client(self, streaming):
        config = ClientConfig(
            streaming=streaming,
            httpx_client=self.http,
            grpc_channel_factory=grpc.aio.insecure_channel,
            supported_protocol_bindings=[self.binding],
        )
        return ClientFactory(config).create(self.card)

    async def shows_its_extended_card(self):
        extended = await self.unary.get_extended_agent_card(a2a.GetExtendedAgentCardRequest())
        skills = [[skill.id for skill in card.skills] for card in (self.card, extended)]
        check("hide" not in skills[0] and "hide" in skills[1], f"one skill more in the extended card: {skills}")

    async def goes_on_after_a_question(self):
        asked = is_in(await task_of(self.unary, say("ask")), "INPUT_REQUIRED")
        got = await self.unary.get_task(a2a.GetTaskRequest(id=asked.id))
        is_in(got, "INPUT_REQUIRED")
        done = is_in(await task_of(self.unary, say("Seattle", task_id=asked.id)), "COMPLETED")
        check((done.id, done.context_id) == (asked.id, asked.context_id), f"the same task goes on: {done}")
        await self.keeps_to_the_history_length(done)

    async def keeps_to_the_history_length(self, task):
        async def history(**length):
            got = await self.unary.get_task(a2a.GetTaskRequest(id=task.id, **length))
            return [get_message_text(message) for message in got.history if message.role == a2a.Role.ROLE_USER], got

        said, got = await history()
        check(said == ["ask", "Seattle"], f"all that was said: {got}")
        _, got = await history(history_length=0)
        check(not got.history, f"nothing of it at 0: {got}")
        _, got = await history(history_length=1)
        check(len(got.history) == 1, f"one message at 1: {got}")

    async def lists_tasks_in_pages(self):
        context = unique("context")
        made = [(await task_of(self.unary, say("echo", context_id=context))).id for _ in range(5)]
        pages, token = [], ""
        while not pages or (token and len(pages) < 5):
            request = a2a.ListTasksRequest(context_id=context, page_size=2, page_token=token)
            page = await self.unary.list_tasks(request)
            check(page.total_size == 5, f"of five: {page}")
            check(not any(task.artifacts for task in page.tasks), f"no artifacts: {page}")
            pages.append([task.id for task in page.tasks])
            token = page.next_page_token
        check([len(page) for page in pages] == [2, 2, 1], f"pages of two: {pages}")
        check(sorted(sum(pages, [])) == sorted(made), f"each once: {pages}, not {made}")
        request = a2a.ListTasksRequest(context_id=context, include_artifacts=True, status=COMPLETED)
        page = await self.unary.list_tasks(request)
        check(len(page.tasks) == 5 and all(task.artifacts for task in page.tasks), f"artifacts: {page}")

    async def streams_alike(self):
        name = unique("count")
        made = self.streaming.send_message(say(f"count 5 {name}"))
        opening = await anext(made)
        check(opening.HasField("task"), f"a stream begins with the task: {opening}")
        task = opening.task.id
        others = [self.streaming.subscribe(a2a.SubscribeToTaskRequest(id=task)) for _ in range(3)]
        for events in others:
            snapshot = await anext(events)
            check(snapshot.task.id == task, f"a subscription begins with the task: {snapshot}")
        await others.pop().aclose()  # Which leaves the others alone.
        await task_of(self.unary, say(f"release {name}"))
        seen = await asyncio.gather(*map(rest_of, [made, *others]))

        def step(event):
            return get_message_text(event.status_update.status.message)

        # What came before a subscription is in its snapshot.
        seen = [events[[step(event) for event in events].index("step 1") :] for events in seen]
        steps = [step(event) for event in seen[0] if step(event).startswith("step ")]
        check(steps == [f"step {number}" for number in range(1, 6)], f"in order: {steps}")
        check(seen[0][-1].status_update.status.state == COMPLETED, f"up to the end: {seen[0]}")
        check(seen[0] == seen[1] == seen[2], f"the same events in the same order: {seen}")

    async def pushes(self):
        webhook, name, client = Webhook(), unique("wait"), self.unary
        request = say(f"wait {name}")
        request.configuration.return_immediately = True
        request.configuration.task_push_notification_config.CopyFrom(
            a2a.TaskPushNotificationConfig(url=f"{webhook.url}/brought", token="of-the-client")
        )
        task = await task_of(client, request)
        bearer = a2a.AuthenticationInfo(scheme="Bearer", credentials="secret")
        for named in ("kept", "dropped"):
            config = a2a.TaskPushNotificationConfig(
                task_id=task.id, id=named, url=f"{webhook.url}/{named}", authentication=bearer
            )
            made = await client.create_task_push_notification_config(config)
            check((made.id, made.url) == (named, config.url), f"a configuration: {made}")
        place = {"task_id": task.id, "id": "kept"}
        got = await client.get_task_push_notification_config(a2a.GetTaskPushNotificationConfigRequest(**place))
        check((got.id, got.url) == ("kept", f"{webhook.url}/kept"), f"it is kept: {got}")

        async def urls():
            request = a2a.ListTaskPushNotificationConfigsRequest(task_id=task.id)
            listed = await client.list_task_push_notification_configs(request)
            return sorted(config.url.removeprefix(webhook.url) for config in listed.configs)

        check(await urls() == ["/brought", "/dropped", "/kept"], f"all are listed: {await urls()}")
        place = {"task_id": task.id, "id": "dropped"}
        delete = a2a.DeleteTaskPushNotificationConfigRequest(**place)
        await client.delete_task_push_notification_config(delete)
        await client.delete_task_push_notification_config(delete)
        check(await urls() == ["/brought", "/kept"], f"one is gone: {await urls()}")
        await refused(
            errors.TaskNotFoundError,
            client.get_task_push_notification_config(a2a.GetTaskPushNotificationConfigRequest(**place)),
            "a deleted configuration",
        )
        await task_of(client, say(f"release {name}"))
        told = await webhook.hears("TASK_STATE_COMPLETED", "/brought", "/kept")
        headers = {path: {name.lower(): value for name, value in headers.items()} for path, headers, _ in told}
        check(sorted(headers) == ["/brought", "/kept"], f"nothing goes to what was deleted: {headers}")
        check(headers["/kept"]["authorization"] == "Bearer secret", f"with credentials: {headers}")
        check(headers["/brought"]["x-a2a-notification-token"] == "of-the-client", f"with the token: {headers}")
        return headers["/kept"]["content-type"]

    async def cancels(self):
        request = say(f"wait {unique('wait')}")
        request.configuration.return_immediately = True
        for task in [await task_of(self.unary, say("ask")), await task_of(self.unary, request)]:
            is_in(await self.unary.cancel_task(a2a.CancelTaskRequest(id=task.id)), "CANCELED")
            is_in(await self.unary.get_task(a2a.GetTaskRequest(id=task.id)), "CANCELED")

    async def refuses(self):
        client, streaming = self.unary, self.streaming
        nobody, done = unique("nobody"), await task_of(client, say("echo done"))
        for what, call in {
            "GetTask": client.get_task(a2a.GetTaskRequest(id=nobody)),
            "CancelTask": client.cancel_task(a2a.CancelTaskRequest(id=nobody)),
            "SubscribeToTask": first_of(streaming.subscribe(a2a.SubscribeToTaskRequest(id=nobody))),
            "SendMessage": task_of(client, say("echo", task_id=nobody)),
            "SendStreamingMessage": first_of(streaming.send_message(say("echo", task_id=nobody))),
            "CreateTaskPushNotificationConfig": client.create_task_push_notification_config(
                a2a.TaskPushNotificationConfig(task_id=nobody, url="http://127.0.0.1:9")
            ),
            "ListTaskPushNotificationConfigs": client.list_task_push_notification_configs(
                a2a.ListTaskPushNotificationConfigsRequest(task_id=nobody)
            ),
        }.items():
            await refused(errors.TaskNotFoundError, call, what)
        cancel = client.cancel_task(a2a.CancelTaskRequest(id=done.id))
        await refused(errors.TaskNotCancelableError, cancel, "CancelTask of a task that has ended")
        for what, call in {
            "SubscribeToTask": first_of(streaming.subscribe(a2a.SubscribeToTaskRequest(id=done.id))),
            "SendMessage": task_of(client, say("echo", task_id=done.id)),
            "SendStreamingMessage": first_of(streaming.send_message(say("echo", task_id=done.id))),
        }.items():
            await refused(errors.UnsupportedOperationError, call, f"{what} about a task that has ended")
        picture = say("", part=a2a.Part(raw=b"\0\1", media_type="image/png"))
        await refused(errors.ContentTypeNotSupportedError, task_of(client, picture), "a picture")
        if self.binding != "GRPC":
            other = ClientCallContext(service_parameters={"A2A-Version": "9.9"})
            await refused(
                errors.VersionNotSupportedError,
                client.get_task(a2a.GetTaskRequest(id=done.id), context=other),
                "another version",
            )

    async def has_no_options(self):
        task = is_in(await task_of(self.unary, say("ask")), "INPUT_REQUIRED")
        config = a2a.TaskPushNotificationConfig(task_id=task.id, url="http://127.0.0.1:9")
        call = self.unary.create_task_push_notification_config(config)
        await refused(errors.PushNotificationNotSupportedError, call, "a push configuration")

    async def requires_its_extension(self):
        await refused(errors.ExtensionSupportRequiredError, task_of(self.unary, say("ask")), "without the extension")
        named = ClientCallContext(service_parameters={"A2A-Extensions": REQUIRED_EXTENSION})
        is_in(await task_of(self.unary, say("ask"), context=named), "INPUT_REQUIRED")
        call = self.unary.get_extended_agent_card(a2a.GetExtendedAgentCardRequest(), context=named)
        await refused(errors.ExtendedAgentCardNotConfiguredError, call, "an extended card that is not there")


async def main(url, binding, plain=None, strict=None):
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        agent = await Conversation.at(url, http, binding)
        await agent.shows_its_extended_card()
        await agent.goes_on_after_a_question()
        await agent.lists_tasks_in_pages()
        await agent.streams_alike()
        pushed_as = await agent.pushes()
        await agent.cancels()
        await agent.refuses()
        if plain:
            await (await Conversation.at(plain, http, binding)).has_no_options()
            await (await Conversation.at(strict, http, binding)).requires_its_extension()
        print(json.dumps({"binding": binding, "pushedAs": pushed_as}))


asyncio.run(main(*sys.argv[1:]))
