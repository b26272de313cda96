// A conversation of the official JavaScript A2A client with an agent, directly or through the router: all that the client can do.
//
// usage: node a2a_conversation.cjs URL BINDING [PLAIN_URL STRICT_URL]      BINDING: GRPC | JSONRPC | HTTP+JSON
//
// The agent whose card is below URL does what `a2a_agent.cjs` says; PLAIN_URL and STRICT_URL are of agents without optional
// capabilities, and with a required extension. Prints one JSON object; any deviation is an exception and a non-zero exit code.
//
// The client of 1.3.0 asks only for what a card declares, and sends no version but its own; where the agent is to say so, its
// transport is asked.
"use strict";

const assert = require("node:assert/strict");
const { randomUUID } = require("node:crypto");
const { once, EventEmitter, on } = require("node:events");
const { createServer } = require("node:http");
const a2a = require("@a2a-js/sdk");
const { ClientFactory, JsonRpcTransportFactory, RestTransportFactory } = require("@a2a-js/sdk/client");
const { GrpcTransportFactory } = require("@a2a-js/sdk/client/grpc");

const TRANSPORTS = { GRPC: GrpcTransportFactory, JSONRPC: JsonRpcTransportFactory, "HTTP+JSON": RestTransportFactory };
const REQUIRED_EXTENSION = "urn:example:required:v1";
const PATIENCE = 30_000;

const unique = (what) => `${what}-${randomUUID()}`;

// Requests, and answers, as ProtoJSON.
function say(text, { part, configuration, ...about } = {}) {
  const message = { messageId: unique("m"), role: "ROLE_USER", parts: [part ?? { text }], ...about };
  return a2a.SendMessageRequest.fromJSON({ message, configuration });
}

function event(response) {
  return a2a.StreamResponse.toJSON(response);
}

function isIn(task, state) {
  assert.equal(task.status?.state, `TASK_STATE_${state}`, JSON.stringify(task));
  return task;
}

// The call ends with this error of the SDK.
async function refused(name, call, what) {
  await assert.rejects(call, (error) => {
    assert.equal(error.name, name, `${what}: ${error.stack}`);
    assert.ok(error.message, what);
    return true;
  }, `${what}: ${name}`);
}

async function first(events) {
  const { value } = await events.next();
  return event(value);
}

async function rest(events) {
  const seen = [];
  for await (const response of events) seen.push(event(response));
  return seen;
}

// Where pushes go to: a server that keeps what it is sent.
class Webhook {
  told = [];
  #taken = new EventEmitter();

  static async start() {
    const webhook = new Webhook();
    const server = createServer(async (request, response) => {
      let body = "";
      for await (const chunk of request) body += chunk;
      response.end();
      webhook.told.push({ path: request.url, headers: request.headers, body: JSON.parse(body) });
      webhook.#taken.emit("push");
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    webhook.url = `http://127.0.0.1:${server.address().port}`;
    return webhook;
  }

  // Waits for a push that tells of a state to each of the paths; gives all that came until then.
  async hears(state, ...paths) {
    const tells = (push) => (push.body.statusUpdate ?? push.body.task)?.status?.state === state;
    const missing = () => paths.filter((path) => !this.told.some((push) => push.path === path && tells(push)));
    if (missing().length > 0) {
      for await (const _ of on(this.#taken, "push", { signal: AbortSignal.timeout(PATIENCE) })) {
        if (missing().length === 0) break;
      }
    }
    return this.told;
  }
}

class Conversation {
  static async at(url, binding) {
    const factory = new ClientFactory({ transports: [new TRANSPORTS[binding]()] });
    const there = `${url}/.well-known/agent-card.json`;
    const conversation = new Conversation();
    conversation.card = await (await fetch(there)).json();
    const declared = conversation.card.supportedInterfaces.map((way) => way.protocolBinding);
    assert.ok(declared.includes(binding), `the card offers ${binding}, not only ${declared}`);
    conversation.client = await factory.createFromUrl(there, "");
    return conversation;
  }

  async task(request, options) {
    const answer = await this.client.sendMessage(request, options);
    assert.ok(answer.id && answer.status, `a task: ${JSON.stringify(answer)}`);
    return a2a.Task.toJSON(answer);
  }

  async got(id, more) {
    return a2a.Task.toJSON(await this.client.getTask(a2a.GetTaskRequest.fromJSON({ id, ...more })));
  }

  cancel(id) {
    return this.client.cancelTask(a2a.CancelTaskRequest.fromJSON({ id }));
  }

  subscribe(id) {
    return this.client.resubscribeTask(a2a.SubscribeToTaskRequest.fromJSON({ id }));
  }

  async showsItsExtendedCard() {
    const extended = await this.client.getAgentCard();
    const [own, all] = [this.card, extended].map((card) => card.skills.map((skill) => skill.id));
    assert.ok(!own.includes("hide") && all.includes("hide"), `one skill more in the extended card: ${own}; ${all}`);
  }

  async goesOnAfterAQuestion() {
    const asked = isIn(await this.task(say("ask")), "INPUT_REQUIRED");
    isIn(await this.got(asked.id), "INPUT_REQUIRED");
    const done = isIn(await this.task(say("Seattle", { taskId: asked.id })), "COMPLETED");
    assert.deepEqual([done.id, done.contextId], [asked.id, asked.contextId], "the same task goes on");
    const all = (await this.got(done.id)).history.filter((message) => message.role === "ROLE_USER");
    assert.deepEqual(all.map((message) => message.parts[0].text), ["ask", "Seattle"], "all that was said");
    assert.deepEqual((await this.got(done.id, { historyLength: 0 })).history ?? [], [], "nothing of it at 0");
    assert.equal((await this.got(done.id, { historyLength: 1 })).history.length, 1, "one message at 1");
  }

  async listsTasksInPages() {
    const contextId = unique("context");
    const made = [];
    for (let count = 0; count < 5; count += 1) made.push((await this.task(say("echo", { contextId }))).id);
    const list = async (more) =>
      a2a.ListTasksResponse.toJSON(await this.client.listTasks(a2a.ListTasksRequest.fromJSON({ contextId, ...more })));
    const pages = [];
    let pageToken = "";
    do {
      const page = await list({ pageSize: 2, pageToken });
      assert.equal(page.totalSize, 5, JSON.stringify(page));
      assert.ok(!page.tasks.some((task) => task.artifacts?.length), `no artifacts: ${JSON.stringify(page)}`);
      pages.push(page.tasks.map((task) => task.id));
      pageToken = page.nextPageToken;
    } while (pageToken && pages.length < 5);
    assert.deepEqual(pages.map((page) => page.length), [2, 2, 1], "pages of two");
    assert.deepEqual(pages.flat().sort(), made.sort(), "each once");
    const { tasks } = await list({ includeArtifacts: true, status: "TASK_STATE_COMPLETED" });
    assert.ok(tasks.length === 5 && tasks.every((task) => task.artifacts.length), JSON.stringify(tasks));
  }

  async streamsAlike() {
    const name = unique("count");
    const made = this.client.sendMessageStream(say(`count 5 ${name}`));
    const { task } = await first(made);
    assert.ok(task?.id, "a stream begins with the task");
    const others = [1, 2, 3].map(() => this.subscribe(task.id));
    for (const events of others) assert.equal((await first(events)).task?.id, task.id, "so does a subscription");
    await others.pop().return(); // Which leaves the others alone.
    await this.task(say(`release ${name}`));
    const step = (event) => event.statusUpdate?.status.message?.parts[0].text;
    const all = await Promise.all([made, ...others].map(rest));
    // What came before a subscription is in its snapshot.
    const seen = all.map((events) => events.slice(events.findIndex((event) => step(event) === "step 1")));
    const steps = seen[0].map(step).filter((text) => text?.startsWith("step "));
    assert.deepEqual(steps, ["step 1", "step 2", "step 3", "step 4", "step 5"], "in order");
    isIn(seen[0].at(-1).statusUpdate, "COMPLETED");
    for (const events of seen.slice(1)) assert.deepEqual(events, seen[0], "the same events in the same order");
  }

  async pushes() {
    const { client } = this;
    const webhook = await Webhook.start();
    const name = unique("wait");
    const brought = { url: `${webhook.url}/brought`, token: "of-the-client" };
    const configuration = { returnImmediately: true, taskPushNotificationConfig: brought };
    const { id: taskId } = await this.task(say(`wait ${name}`, { configuration }));
    for (const id of ["kept", "dropped"]) {
      const authentication = { scheme: "Bearer", credentials: "secret" };
      const config = { taskId, id, url: `${webhook.url}/${id}`, authentication };
      const made = await client.createTaskPushNotificationConfig(a2a.TaskPushNotificationConfig.fromJSON(config));
      assert.deepEqual([made.id, made.url], [id, config.url]);
    }
    const named = (type, id) => type.fromJSON({ taskId, id });
    const got = await client.getTaskPushNotificationConfig(named(a2a.GetTaskPushNotificationConfigRequest, "kept"));
    assert.deepEqual([got.id, got.url], ["kept", `${webhook.url}/kept`]);
    const urls = async () => {
      const request = a2a.ListTaskPushNotificationConfigsRequest.fromJSON({ taskId });
      const { configs } = await client.listTaskPushNotificationConfig(request);
      return configs.map((config) => config.url.replace(webhook.url, "")).sort();
    };
    assert.deepEqual(await urls(), ["/brought", "/dropped", "/kept"]);
    const dropped = named(a2a.DeleteTaskPushNotificationConfigRequest, "dropped");
    await client.deleteTaskPushNotificationConfig(dropped);
    await client.deleteTaskPushNotificationConfig(dropped);
    assert.deepEqual(await urls(), ["/brought", "/kept"]);
    const gone = client.getTaskPushNotificationConfig(named(a2a.GetTaskPushNotificationConfigRequest, "dropped"));
    await refused("TaskNotFoundError", gone, "a deleted configuration");
    await this.task(say(`release ${name}`));
    const told = await webhook.hears("TASK_STATE_COMPLETED", "/brought", "/kept");
    const headers = Object.fromEntries(told.map((push) => [push.path, push.headers]));
    assert.deepEqual(Object.keys(headers).sort(), ["/brought", "/kept"], "nothing goes to what was deleted");
    assert.equal(headers["/kept"].authorization, "Bearer secret");
    assert.equal(headers["/brought"]["x-a2a-notification-token"], "of-the-client");
    return headers["/kept"]["content-type"];
  }

  async cancels() {
    const waiting = say(`wait ${unique("wait")}`, { configuration: { returnImmediately: true } });
    for (const { id } of [await this.task(say("ask")), await this.task(waiting)]) {
      isIn(a2a.Task.toJSON(await this.cancel(id)), "CANCELED");
      isIn(await this.got(id), "CANCELED");
    }
  }

  async refuses() {
    const { client } = this;
    const nobody = unique("nobody");
    const done = await this.task(say("echo done"));
    const config = { taskId: nobody, url: "http://127.0.0.1:9" };
    const configs = a2a.ListTaskPushNotificationConfigsRequest.fromJSON({ taskId: nobody });
    for (const [what, call] of Object.entries({
      GetTask: () => this.got(nobody),
      CancelTask: () => this.cancel(nobody),
      SubscribeToTask: () => first(this.subscribe(nobody)),
      SendMessage: () => this.task(say("echo", { taskId: nobody })),
      SendStreamingMessage: () => first(client.sendMessageStream(say("echo", { taskId: nobody }))),
      CreateTaskPushNotificationConfig: () =>
        client.createTaskPushNotificationConfig(a2a.TaskPushNotificationConfig.fromJSON(config)),
      ListTaskPushNotificationConfigs: () => client.listTaskPushNotificationConfig(configs),
    })) {
      await refused("TaskNotFoundError", call, what);
    }
    await refused("TaskNotCancelableError", () => this.cancel(done.id), "CancelTask of a task that has ended");
    for (const [what, call] of Object.entries({
      SubscribeToTask: () => first(this.subscribe(done.id)),
      SendMessage: () => this.task(say("echo", { taskId: done.id })),
      SendStreamingMessage: () => first(client.sendMessageStream(say("echo", { taskId: done.id }))),
    })) {
      await refused("UnsupportedOperationError", call, `${what} about a task that has ended`);
    }
    const picture = say("", { part: { raw: "AAE=", mediaType: "image/png" } });
    await refused("ContentTypeNotSupportedError", () => this.task(picture), "a picture");
    const other = { serviceParameters: { "A2A-Version": "9.9" } };
    const read = () => client.transport.getTask(a2a.GetTaskRequest.fromJSON({ id: done.id }), other);
    await refused("VersionNotSupportedError", read, "another version");
  }

  async hasNoOptions() {
    const { id } = isIn(await this.task(say("ask")), "INPUT_REQUIRED");
    const { transport } = this.client;
    const options = { serviceParameters: { "A2A-Version": "1.0" } };
    const config = a2a.TaskPushNotificationConfig.fromJSON({ taskId: id, url: "http://127.0.0.1:9" });
    const push = () => transport.createTaskPushNotificationConfig(config, options);
    await refused("PushNotificationNotSupportedError", push, "a push configuration");
    const card = () => transport.getExtendedAgentCard(a2a.GetExtendedAgentCardRequest.fromJSON({}), options);
    await refused("UnsupportedOperationError", card, "an extended card");
  }

  async requiresItsExtension() {
    await refused("ExtensionSupportRequiredError", () => this.task(say("ask")), "without the extension");
    const options = { serviceParameters: { "A2A-Extensions": REQUIRED_EXTENSION } };
    isIn(await this.task(say("ask"), options), "INPUT_REQUIRED");
    const call = () => this.client.getAgentCard(options);
    await refused("ExtendedAgentCardNotConfiguredError", call, "an extended card that is not there");
  }
}

async function main(url, binding, plain, strict) {
  const agent = await Conversation.at(url, binding);
  await agent.showsItsExtendedCard();
  await agent.goesOnAfterAQuestion();
  await agent.listsTasksInPages();
  await agent.streamsAlike();
  const pushedAs = await agent.pushes();
  await agent.cancels();
  await agent.refuses();
  if (plain) {
    await (await Conversation.at(plain, binding)).hasNoOptions();
    await (await Conversation.at(strict, binding)).requiresItsExtension();
  }
  console.log(JSON.stringify({ binding, pushedAs }));
}

main(...process.argv.slice(2)).then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
