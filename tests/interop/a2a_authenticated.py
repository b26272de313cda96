"""The official Python A2A client with an agent that asks for a token: its interceptor finds in the card for what it has one.

usage: a2a_authenticated.py URL BINDING TOKEN      BINDING: GRPC | JSONRPC | HTTP+JSON

Nothing here says how the token is shown: the card below URL does, by the schemes that it asks for. Prints one JSON object; any
deviation is an exception and a non-zero exit code.
"""

import asyncio
import json
import sys

import grpc.aio
import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.client.auth import AuthInterceptor, CredentialService
from a2a.helpers.proto_helpers import new_text_message
from a2a.types.a2a_pb2 import GetTaskRequest, Role, SendMessageRequest, TaskState


class Known(CredentialService):
    """Has one credential, for all schemes that are HTTP's bearer."""

    def __init__(self, card, token):
        schemes = card.security_schemes.items()
        self.token = token
        self.schemes = [
            name for name, scheme in schemes if scheme.http_auth_security_scheme.scheme.lower() == "bearer"
        ]

    async def get_credentials(self, security_scheme_name, context):
        return self.token if security_scheme_name in self.schemes else None


async def main(url, binding, token):
    async with httpx.AsyncClient(timeout=30) as http:
        card = await A2ACardResolver(http, url).get_agent_card()

        def client(streaming, *interceptors):
            config = ClientConfig(
                streaming=streaming,
                httpx_client=http,
                grpc_channel_factory=grpc.aio.insecure_channel,
                supported_protocol_bindings=[binding],
            )
            return ClientFactory(config).create(card, interceptors=list(interceptors))

        def question():
            return SendMessageRequest(message=new_text_message("echo hello", role=Role.ROLE_USER))

        known, states = AuthInterceptor(Known(card, token)), []
        for streaming in (False, True):
            stranger = client(streaming)
            try:
                answer = [event async for event in stranger.send_message(question())]
            except Exception as refused:  # The SDK has no error of its own for it, and another one for each binding.
                print(f"without a token: {refused!r}", file=sys.stderr)
            else:
                raise AssertionError(f"who shows nothing is answered: {answer}")
            friend = client(streaming, known)
            events = [event async for event in friend.send_message(question())]
            task = await friend.get_task(GetTaskRequest(id=events[0].task.id))
            states.append(TaskState.Name(task.status.state))
        print(json.dumps({"binding": binding, "schemes": sorted(card.security_schemes), "states": states}))


asyncio.run(main(*sys.argv[1:]))
