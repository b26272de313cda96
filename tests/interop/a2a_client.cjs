// The official JavaScript A2A client against two of our agents, directly or through the router.
//
// usage: node a2a_client.cjs WEATHER_URL HELPDESK_URL BINDING      BINDING: GRPC | JSONRPC | HTTP+JSON
//
// Resolves the agents' cards below their URLs, then sends, streams, gets, lists and cancels over the binding, with nothing
// of Muster's own. Prints one JSON object; any deviation is an exception and a non-zero exit code.
"use strict";

const { randomUUID } = require("node:crypto");
const a2a = require("@a2a-js/sdk");
const { ClientFactory, JsonRpcTransportFactory, RestTransportFactory } = require("@a2a-js/sdk/client");
const { GrpcTransportFactory } = require("@a2a-js/sdk/client/grpc");

const TRANSPORTS = { GRPC: GrpcTransportFactory, JSONRPC: JsonRpcTransportFactory, "HTTP+JSON": RestTransportFactory };

function check(condition, what) {
  if (!condition) throw new Error(what);
}

// Parameters of a message, and answers, as ProtoJSON.
function message(part) {
  return a2a.SendMessageRequest.fromJSON({ message: { messageId: randomUUID(), role: "ROLE_USER", parts: [part] } });
}

const json = (task) => a2a.Task.toJSON(task);

async function main(weatherUrl, helpdeskUrl, binding) {
  const factory = new ClientFactory({ transports: [new TRANSPORTS[binding]()] });
  const client = (url) => factory.createFromUrl(`${url}/.well-known/agent-card.json`, "");
  const weather = await client(weatherUrl);
  const card = await weather.getAgentCard();
  const declared = card.supportedInterfaces.map((way) => way.protocolBinding);
  check(declared.includes(binding), `the card offers ${binding}, not only ${declared}`);
  check(card.skills.some((skill) => skill.id === "weather_forecasting"), "the card lists the skill");

  const question = { text: "Seattle 2014-03-01 to 2014-03-05" };
  const sent = json(await weather.sendMessage(message(question)));
  check(sent.status?.state === "TASK_STATE_COMPLETED", `a completed task, not ${JSON.stringify(sent)}`);
  const days = sent.artifacts[0].parts[0].data.days.map((day) => day.date);
  check(days.length === 5 && days[0] === "2014-03-01" && days[4] === "2014-03-05", `five days, not ${days}`);

  const got = json(await weather.getTask(a2a.GetTaskRequest.fromJSON({ id: sent.id })));
  check(got.id === sent.id && got.status.state === sent.status.state, "GetTask finds the task");
  const listed = await weather.listTasks(a2a.ListTasksRequest.fromJSON({ pageSize: 10 }));
  check(listed.tasks.some((task) => task.id === sent.id), "ListTasks finds the task");
  check(listed.nextPageToken !== undefined, "ListTasks has a cursor");

  const kinds = [];
  let state;
  for await (const event of weather.sendMessageStream(message(question))) {
    kinds.push(event.payload.$case);
    const status = event.payload.value.status;
    if (status) state = a2a.taskStateToJSON(status.state);
  }
  check(kinds[0] === "task", `a stream begins with the task, not ${kinds}`);
  check(kinds.includes("artifactUpdate"), `the stream carries the artifact: ${kinds}`);
  check(state === "TASK_STATE_COMPLETED", `completed, not ${state}`);

  // A question that the agent answers with a question stays open, so it can be canceled.
  const helpdesk = await client(helpdeskUrl);
  const open = json(await helpdesk.sendMessage(message({ data: { question: "zzz qqq xxyyzz" } })));
  check(open.status?.state === "TASK_STATE_INPUT_REQUIRED", `asks back, not ${JSON.stringify(open)}`);
  const canceled = json(await helpdesk.cancelTask(a2a.CancelTaskRequest.fromJSON({ id: open.id })));
  check(canceled.status.state === "TASK_STATE_CANCELED", "CancelTask cancels");

  let refused;
  try {
    await weather.getTask(a2a.GetTaskRequest.fromJSON({ id: "nobodys" }));
  } catch (error) {
    refused = error;
  }
  check(refused?.name.startsWith("TaskNotFound"), `TaskNotFound, not ${refused?.name}: ${refused?.message}`);

  console.log(JSON.stringify({ binding, task: sent.id, stream: kinds, canceled: open.id }));
}

main(...process.argv.slice(2)).then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
