// An agent of the official JavaScript A2A SDK on all three bindings: a stranger to Muster.
//
// usage: node a2a_agent.cjs GRPC_PORT HTTP_PORT
//
// It does what the text of a message says:
//
//     echo WORDS      completes with the words as an artifact
//     ask             asks back, and completes with the next message
//     wait NAME       works until it is canceled, or released by that name
//     count N NAME    waits to be released by that name, reports N steps, completes
//     release NAME    lets the others of that name go on
//
// JSON-RPC is at /jsonrpc, HTTP+JSON at /rest; /ready answers once all of them do.
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

const skill = { id: "stranger_echo", name: "Echo", description: "Says it again", tags: ["test"] };
const hidden = { id: "hide", name: "Hide", description: "Is for friends", tags: ["test"] };
const card = (...skills) =>
  AgentCard.fromJSON({
    name: "Stranger",
    description: "An agent of the official JavaScript SDK",
    version: "1.0.0",
    supportedInterfaces: [
      { url: `127.0.0.1:${grpcPort}`, protocolBinding: "GRPC", protocolVersion: "1.0" },
      { url: `${http}/jsonrpc`, protocolBinding: "JSONRPC", protocolVersion: "1.0" },
      { url: `${http}/rest`, protocolBinding: "HTTP+JSON", protocolVersion: "1.0" },
    ],
    capabilities: { streaming: true, pushNotifications: true, extendedAgentCard: true },
    defaultInputModes: ["text/plain"],
    defaultOutputModes: ["text/plain"],
    skills,
  });

// What is opened once: gates by the name that they wait for, and tasks that are canceled.
class Gates {
  #gates = new Map();

  #gate(name) {
    if (!this.#gates.has(name)) this.#gates.set(name, Promise.withResolvers());
    return this.#gates.get(name);
  }

  passed(name) {
    return this.#gate(name).promise;
  }

  open(name) {
    this.#gate(name).resolve();
  }
}

class Executor {
  #contexts = new Map();
  #released = new Gates();
  #canceled = new Gates();

  async execute(request, bus) {
    const { taskId, contextId, userMessage, task } = request;
    const text = userMessage.parts.map((part) => (part.content?.$case === "text" ? part.content.value : "")).join(" ");
    this.#contexts.set(taskId, contextId);
    const now = () => new Date().toISOString();
    const status = (state, said) => {
      const parts = [{ text: said }];
      const message = said && { messageId: randomUUID(), taskId, contextId, role: "ROLE_AGENT", parts };
      const update = { taskId, contextId, status: { state, message, timestamp: now() } };
      bus.publish(AgentEvent.statusUpdate(TaskStatusUpdateEvent.fromJSON(update)));
    };
    const fresh = { id: taskId, contextId, status: { state: "TASK_STATE_SUBMITTED", timestamp: now() } };
    bus.publish(AgentEvent.task(task ?? Task.fromJSON(fresh)));
    status("TASK_STATE_WORKING");
    const [command, ...words] = text.split(" ");
    if (command === "ask") {
      status("TASK_STATE_INPUT_REQUIRED");
      return;
    }
    if (command === "wait") {
      const released = this.#released.passed(words[0]).then(() => true);
      const canceled = this.#canceled.passed(taskId).then(() => false);
      if (!(await Promise.race([released, canceled]))) return;
    } else if (command === "count") {
      await this.#released.passed(words[1]);
      for (let step = 1; step <= Number(words[0]); step += 1) status("TASK_STATE_WORKING", `step ${step}`);
    } else if (command === "release") {
      this.#released.open(words[0]);
    } else {
      const artifact = { artifactId: randomUUID(), name: "echo", parts: [{ text: text.replace(/^echo /, "") }] };
      bus.publish(
        AgentEvent.artifactUpdate(TaskArtifactUpdateEvent.fromJSON({ taskId, contextId, artifact, lastChunk: true })),
      );
    }
    status("TASK_STATE_COMPLETED");
    bus.finished();
  }

  async cancelTask(taskId, bus) {
    const status = { state: "TASK_STATE_CANCELED", timestamp: new Date().toISOString() };
    const update = { taskId, contextId: this.#contexts.get(taskId), status };
    bus.publish(AgentEvent.statusUpdate(TaskStatusUpdateEvent.fromJSON(update)));
    bus.finished();
    this.#canceled.open(taskId);
  }
}

const requestHandler = new DefaultRequestHandler(
  card(skill),
  new InMemoryTaskStore(),
  new Executor(),
  undefined,
  undefined,
  undefined,
  async () => card(skill, hidden),
  undefined,
  { validateInputModes: true },
);

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
