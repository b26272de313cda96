// An agent of the official JavaScript A2A SDK on all three bindings: a stranger to Muster.
//
// usage: node a2a_agent.cjs GRPC_PORT HTTP_PORT
//
// `echo WORDS` completes with the words as an artifact; `ask` asks back, and completes with the next message; `wait` works
// until it is canceled. JSON-RPC is at /jsonrpc, HTTP+JSON at /rest; /ready answers once all of them do.
"use strict";

const { randomUUID } = require("node:crypto");
const grpc = require("@grpc/grpc-js");
const express = require("express");
const { AgentCard, Task, TaskArtifactUpdateEvent, TaskStatusUpdateEvent } = require("@a2a-js/sdk");
const { AgentEvent, DefaultRequestHandler, InMemoryTaskStore } = require("@a2a-js/sdk/server");
const { UserBuilder, agentCardHandler, jsonRpcHandler, restHandler } = require("@a2a-js/sdk/server/express");
const { A2AService, UserBuilder: GrpcUserBuilder, grpcService } = require("@a2a-js/sdk/server/grpc");

const [grpcPort, httpPort] = process.argv.slice(2).map(Number);
const http = `http://127.0.0.1:${httpPort}`;

const card = AgentCard.fromJSON({
  name: "Stranger",
  description: "An agent of the official JavaScript SDK",
  version: "1.0.0",
  supportedInterfaces: [
    { url: `127.0.0.1:${grpcPort}`, protocolBinding: "GRPC", protocolVersion: "1.0" },
    { url: `${http}/jsonrpc`, protocolBinding: "JSONRPC", protocolVersion: "1.0" },
    { url: `${http}/rest`, protocolBinding: "HTTP+JSON", protocolVersion: "1.0" },
  ],
  capabilities: { streaming: true },
  defaultInputModes: ["text/plain"],
  defaultOutputModes: ["text/plain"],
  skills: [{ id: "stranger_echo", name: "Echo", description: "Says it again", tags: ["test"] }],
});

const contexts = new Map();

class Executor {
  async execute(request, bus) {
    const { taskId, contextId, userMessage, task } = request;
    const text = userMessage.parts.map((part) => (part.content?.$case === "text" ? part.content.value : "")).join(" ");
    contexts.set(taskId, contextId);
    const now = () => new Date().toISOString();
    const status = (state) =>
      bus.publish(
        AgentEvent.statusUpdate(TaskStatusUpdateEvent.fromJSON({ taskId, contextId, status: { state, timestamp: now() } })),
      );
    bus.publish(
      AgentEvent.task(
        task ?? Task.fromJSON({ id: taskId, contextId, status: { state: "TASK_STATE_SUBMITTED", timestamp: now() } }),
      ),
    );
    status("TASK_STATE_WORKING");
    if (text === "wait") return; // Until it is canceled.
    if (text === "ask") {
      status("TASK_STATE_INPUT_REQUIRED");
    } else {
      const artifact = { artifactId: randomUUID(), name: "echo", parts: [{ text: text.replace(/^echo /, "") }] };
      bus.publish(
        AgentEvent.artifactUpdate(TaskArtifactUpdateEvent.fromJSON({ taskId, contextId, artifact, lastChunk: true })),
      );
      status("TASK_STATE_COMPLETED");
    }
    bus.finished();
  }

  async cancelTask(taskId, bus) {
    const status = { state: "TASK_STATE_CANCELED", timestamp: new Date().toISOString() };
    bus.publish(
      AgentEvent.statusUpdate(TaskStatusUpdateEvent.fromJSON({ taskId, contextId: contexts.get(taskId), status })),
    );
    bus.finished();
  }
}

const requestHandler = new DefaultRequestHandler(card, new InMemoryTaskStore(), new Executor());

const server = new grpc.Server();
server.addService(A2AService, grpcService({ requestHandler, userBuilder: GrpcUserBuilder.noAuthentication }));
server.bindAsync(`127.0.0.1:${grpcPort}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
  const app = express();
  const userBuilder = UserBuilder.noAuthentication;
  app.use("/.well-known/agent-card.json", agentCardHandler({ agentCardProvider: requestHandler }));
  app.use("/jsonrpc", jsonRpcHandler({ requestHandler, userBuilder }));
  app.use("/rest", restHandler({ requestHandler, userBuilder }));
  app.get("/ready", (_, response) => response.send("ready"));
  app.listen(httpPort, "127.0.0.1", (error) => {
    if (error) throw error;
  });
});
