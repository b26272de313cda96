//! The table of cases, and what they share.

mod access;
mod canceling;
mod cards;
mod contexts;
mod errors;
mod listing;
mod negotiating;
mod pushing;
mod reading;
mod sending;
mod streaming;
mod validating;
mod wire;

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::{JoinError, JoinSet, LocalSet};
use uuid::Uuid;

use crate::bench::{Bench, Subject};
use crate::driver::{Binding, Driver, Events, Operation, Outcome};
use crate::gaps::{self, Known};

/// How long a case may take as a whole.
const LONGEST: Duration = Duration::from_secs(240);

type Running = Pin<Box<dyn Future<Output = ()>>>;

/// One demand of the protocol. A case that does not hold panics and says why.
struct Case {
    name: &'static str,
    must: &'static str,
    run: fn(Rc<Bench>) -> Running,
}

macro_rules! cases {
    ($($module:ident::$name:ident: $must:literal),* $(,)?) => {
        const CASES: &[Case] = &[$(Case {
            name: stringify!($name),
            must: $must,
            run: |bench| Box::pin(async move { $module::$name(&bench).await }),
        }),*];
    };
}

cases! {
    cards::card_is_discoverable: "the card is at /.well-known/agent-card.json and has its required fields",
    cards::card_declares_the_binding: "all bindings are declared in the card, with their version",
    cards::card_is_cached: "the card has Cache-Control with max-age and an ETag that answers If-None-Match with 304",
    cards::credentials_are_declared: "the card declares what callers have to show, and nothing where they have to show nothing",
    cards::extended_card_is_served: "GetExtendedAgentCard gives the card where the capability is declared",
    cards::extended_card_unsupported: "without the capability, GetExtendedAgentCard is UnsupportedOperation",
    cards::extended_card_not_configured: "declared but not configured, it is ExtendedAgentCardNotConfigured",

    sending::send_answers_with_the_task: "SendMessage answers with a task or a message",
    sending::send_waits_for_a_terminal_state: "SendMessage waits until the task is terminal",
    sending::send_waits_for_input_required: "SendMessage waits until INPUT_REQUIRED",
    sending::send_waits_for_auth_required: "SendMessage waits until AUTH_REQUIRED",
    sending::send_returns_immediately: "with return_immediately, SendMessage answers while the task is at work",
    sending::failures_are_states: "a task that fails or is rejected ends in that state",
    sending::task_ids_are_the_servers: "task ids are made by the server, each once",
    sending::a_message_sent_again_is_one_task: "agents may tell by messageId that a message is sent again: ours make one task of it",
    sending::a_client_cannot_make_a_task_id: "a message with an unknown taskId is TaskNotFound",
    sending::a_terminal_task_takes_no_message: "a message to a terminal task is UnsupportedOperation",
    sending::an_interrupted_task_goes_on: "a message to a task in INPUT_REQUIRED continues it",
    sending::content_types_are_checked: "a part of a media type that the input modes exclude is ContentTypeNotSupported",
    sending::content_survives: "all representations carry the same data",
    sending::an_answer_may_be_a_message: "an agent may answer with a message alone",
    sending::nonsense_of_an_agent_is_told: "an agent's answer that is not A2A is InvalidAgentResponse",

    contexts::a_context_is_generated: "without contextId one is generated, and is in the answer",
    contexts::a_context_is_preserved: "a client's contextId is accepted and kept",
    contexts::a_context_is_inferred: "contextId is inferred from taskId",
    contexts::a_context_that_does_not_match_is_rejected: "contextId and taskId that do not match are rejected",
    contexts::send_keeps_to_the_history_length: "SendMessage keeps to historyLength: none at 0, at most n",
    contexts::get_keeps_to_the_history_length: "GetTask keeps to historyLength",
    contexts::list_keeps_to_the_history_length: "ListTasks keeps to historyLength",

    reading::a_task_is_read: "GetTask gives state and artifacts",
    reading::an_unknown_task_is_not_found: "every operation on an unknown task is TaskNotFound",

    listing::newest_first: "ListTasks is sorted by last update, newest first",
    listing::pages_follow_cursors: "ListTasks has cursors, the total and the page size; the last nextPageToken is empty",
    listing::pages_have_50_by_default_and_100_at_most: "ListTasks gives 50 by default and 100 at most",
    listing::sizes_out_of_bounds: "page sizes below 1 or above 100 are refused as invalid or brought into bounds",
    listing::a_false_cursor_is_invalid: "a pageToken that nobody gave is invalid",
    listing::next_page_token_is_always_there: "nextPageToken is always present",
    listing::artifacts_only_on_request: "ListTasks leaves artifacts out unless includeArtifacts says otherwise",
    listing::by_status: "ListTasks filters by status",
    listing::by_time: "ListTasks filters by statusTimestampAfter, inclusively",

    canceling::a_working_task_is_canceled: "CancelTask cancels a task at work and gives its new state",
    canceling::an_interrupted_task_is_canceled: "CancelTask cancels a task in INPUT_REQUIRED",
    canceling::a_terminal_task_is_not_cancelable: "CancelTask of a terminal task is TaskNotCancelable; of a canceled one it changes nothing",

    streaming::a_stream_is_a_task_and_its_updates: "a stream is a Task, then updates up to a terminal state, then its end",
    streaming::a_stream_may_be_one_message: "a stream of a message is exactly one Message",
    streaming::events_are_in_order: "events come in the order in which they were made",
    streaming::a_subscription_begins_with_the_task: "SubscribeToTask begins with the Task and ends with its terminal state",
    streaming::a_subscription_outlasts_interruptions: "SubscribeToTask of an interrupted task goes on to its terminal state",
    streaming::a_terminal_task_has_no_subscription: "SubscribeToTask of a terminal task is UnsupportedOperation",
    streaming::streams_of_a_task_are_alike: "every stream of a task gets the same events in the same order",
    streaming::a_slow_stream_misses_nothing: "a stream that is read late holds up nobody, and misses nothing without a word",
    streaming::a_canceled_task_ends_its_streams: "streams end with CANCELED when the task is canceled",
    streaming::a_closed_stream_leaves_the_others: "closing a stream leaves the others and the task alone",
    streaming::a_terminal_task_takes_no_streamed_message: "a streamed message to a terminal task is UnsupportedOperation",
    streaming::streamed_messages_are_checked: "a streamed message is checked like any other",
    streaming::without_streaming_it_is_refused: "without the capability, SendStreamingMessage and SubscribeToTask are UnsupportedOperation",
    streaming::subscribe_by_get_and_post: "over HTTP+JSON, :subscribe is served by GET and by POST",

    pushing::without_push_it_is_refused: "without the capability, push operations are PushNotificationNotSupported",
    pushing::configs_are_kept: "configurations are created, read, listed and deleted; deleting again is no error",
    pushing::configs_belong_to_known_tasks: "push operations on an unknown task are TaskNotFound",
    pushing::updates_are_delivered: "updates go out as StreamResponse in application/a2a+json with token and credentials",
    pushing::configs_come_in_pages: "push configurations are listed in pages, each once",
    pushing::a_failed_delivery_is_retried: "a delivery that the webhook fails to take is attempted again, in order",
    pushing::a_refused_delivery_is_not_the_last: "what a webhook refuses is left out; the end is delivered all the same",
    pushing::a_message_may_bring_its_config: "SendMessage takes a push configuration for its task",
    pushing::a_deleted_config_is_silent: "nothing is sent to a configuration after its deletion",

    negotiating::another_version_is_refused: "a version that is not spoken is VersionNotSupported",
    negotiating::another_version_in_the_query_is_refused: "over HTTP the version may stand in the query",
    negotiating::no_version_means_0_3: "no version means 0.3",
    negotiating::patch_versions_do_not_matter: "patch numbers are not considered",
    negotiating::a_required_extension_is_required: "a request without a required extension is ExtensionSupportRequired",
    negotiating::a_required_extension_that_is_named_serves: "a request that names the required extension is served",
    negotiating::other_extensions_are_ignored: "extensions that the agent does not know are ignored",

    validating::a_request_needs_a_message: "a request without message is invalid",
    validating::a_message_needs_its_fields: "a message without messageId, role or parts is invalid",
    validating::a_part_needs_content: "a part without content is invalid",
    validating::enums_are_checked: "an unknown enum value is invalid",
    validating::an_operation_needs_its_task: "operations on a task without its id are invalid",
    validating::types_are_checked: "parameters of a wrong type are invalid",
    validating::a_config_needs_a_url: "a push configuration without a usable URL is invalid",

    errors::json_that_is_none: "malformed JSON is a parse error",
    errors::envelopes_are_checked: "an envelope that is none is an invalid request",
    errors::unknown_methods: "an unknown method is refused as the binding has it",

    access::credentials_are_demanded: "who shows no credentials or false ones is refused, before anything is looked up",
    access::roles_are_demanded: "who may not do something is refused, before anything is looked up",
    access::anothers_task_is_not_there: "another caller's task is TaskNotFound, in the words for one that does not exist",
    access::lists_show_what_is_the_callers: "ListTasks shows and counts the caller's tasks alone",

    wire::bindings_agree: "a task looks the same over every binding",
    wire::json_is_proto_json: "JSON is ProtoJSON: camelCase, names of enums, times in UTC",
    wire::media_types: "answers, errors and streams have their media types",
    wire::both_media_types_are_taken: "HTTP+JSON takes application/json and application/a2a+json",
    wire::other_media_types_are_refused: "a body of another media type is ContentTypeNotSupported",
    wire::a_slash_at_the_end: "JSON-RPC answers at the card's URL with a slash at the end, too",
    wire::operations_take_a_tenant: "every operation takes a tenant; over HTTP+JSON as the first part of the path",
}

/// The names of all cases.
pub fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.name)
}

/// Runs all cases on one binding against one subject; panics with everything that is not as it is known to be.
pub async fn run(subject: Subject, binding: Binding) {
    for name in gaps::names() {
        assert!(
            CASES.iter().any(|case| case.name == name),
            "gaps.rs lists '{name}', which is no case"
        );
    }
    let bench = Rc::new(Bench::start(subject, binding).await);
    let outcomes = LocalSet::new().run_until(outcomes(bench)).await;
    let mut wrong: Vec<String> = Vec::new();
    for (case, failure) in outcomes {
        let known = gaps::known(case.name, subject, binding);
        match failure {
            Some(why) if known == Known::Holds => {
                wrong.push(format!("{}: MUST: {}\n    {why}", case.name, case.must))
            }
            None if known == Known::Fails => {
                wrong.push(format!("{}: holds now; take it out of gaps.rs", case.name))
            }
            _ => {}
        }
    }
    wrong.sort();
    assert!(
        wrong.is_empty(),
        "{subject:?} over {binding:?}: {} of {} cases are not as they should be:\n\n{}",
        wrong.len(),
        CASES.len(),
        wrong.join("\n\n")
    );
}

/// Runs all cases at once, each as a task of its own, so that a panic is the outcome of that case alone.
async fn outcomes(bench: Rc<Bench>) -> Vec<(&'static Case, Option<String>)> {
    let mut running = JoinSet::new();
    for case in CASES {
        let mut alone = JoinSet::new();
        alone.spawn_local(tokio::time::timeout(LONGEST, (case.run)(Rc::clone(&bench))));
        running.spawn_local(async move {
            let failure = match alone.join_next().await {
                Some(Ok(Ok(()))) => None,
                Some(Ok(Err(_))) => Some(format!("takes more than {LONGEST:?}")),
                Some(Err(error)) => Some(said(error)),
                None => Some("has not run".to_owned()),
            };
            (case, failure)
        });
    }
    running.join_all().await
}

/// What a panic said.
fn said(error: JoinError) -> String {
    if !error.is_panic() {
        return error.to_string();
    }
    let panic = error.into_panic();
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

/// A name that nobody else uses.
fn unique(what: &str) -> String {
    format!("{what}-{}", Uuid::now_v7())
}

/// Parameters of SendMessage: a text.
fn say(text: &str) -> Value {
    json!({ "message": { "messageId": unique("m"), "role": "ROLE_USER", "parts": [{ "text": text }] } })
}

/// The same in a context.
fn say_in(context: &str, text: &str) -> Value {
    with(say(text), "/message/contextId", json!(context))
}

/// The same about a task.
fn say_about(task: &Value, text: &str) -> Value {
    with(say(text), "/message/taskId", task["id"].clone())
}

/// The same without waiting for the end.
fn say_and_go(text: &str) -> Value {
    with(say(text), "/configuration", json!({ "returnImmediately": true }))
}

/// The value with another one at a place; the object that holds it is there.
fn with(mut value: Value, pointer: &str, new: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = value.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"));
    parent[name] = new;
    value
}

/// The value without the one at a place.
fn without(mut value: Value, pointer: &str) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = value.pointer_mut(parent).and_then(Value::as_object_mut);
    parent.expect("an object").remove(name).expect("it was there");
    value
}

/// Sends, and gives the task of the answer.
async fn task_of(driver: &Driver, params: Value) -> Value {
    let answer = driver.ok(Operation::SendMessage, params).await;
    let task = &answer["task"];
    assert!(task.is_object(), "a task is due: {answer}");
    task.clone()
}

/// A task that waits to be released, and the name by which it is.
async fn waiting(bench: &Bench, driver: &Driver) -> (Value, String) {
    let name = unique("wait");
    let task = task_of(driver, say_and_go(&format!("wait {name}"))).await;
    bench.signals.reached(&name).await;
    (task, name)
}

/// How an operation ends, or its stream begins.
async fn outcome(driver: &Driver, operation: Operation, params: Value) -> Outcome {
    match operation {
        Operation::SendStreamingMessage | Operation::SubscribeToTask => {
            driver.first_of_stream(operation, params).await
        }
        _ => driver.call(operation, params).await,
    }
}

/// A task in each terminal state.
async fn ended(bench: &Bench, driver: &Driver) -> Vec<Value> {
    let mut tasks = Vec::new();
    for text in ["echo", "fail", "reject"] {
        tasks.push(task_of(driver, say(text)).await);
    }
    let (task, _) = waiting(bench, driver).await;
    tasks.push(
        driver
            .ok(Operation::CancelTask, json!({ "id": task["id"] }))
            .await,
    );
    let states: Vec<&str> = tasks.iter().map(state_of).collect();
    assert!(states.iter().all(|state| is_terminal(state)), "{states:?}");
    tasks
}

/// A task as GetTask gives it.
async fn read(driver: &Driver, task: &Value) -> Value {
    driver.ok(Operation::GetTask, json!({ "id": task["id"] })).await
}

/// Waits until a task is in a state.
async fn becomes(driver: &Driver, task: &Value, state: &str) -> Value {
    muster_testkit::wait_for(state, crate::driver::PATIENCE, async || {
        let task = read(driver, task).await;
        if state_of(&task) == state {
            Ok(task)
        } else {
            Err(task.to_string())
        }
    })
    .await
}

/// A task's state.
fn state_of(task: &Value) -> &str {
    task["status"]["state"].as_str().unwrap_or("none")
}

fn is_terminal(state: &str) -> bool {
    matches!(
        state,
        "TASK_STATE_COMPLETED" | "TASK_STATE_FAILED" | "TASK_STATE_CANCELED" | "TASK_STATE_REJECTED"
    )
}

/// The one thing that an event is.
fn kind(event: &Value) -> &str {
    let fields: Vec<&str> = event
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    match fields.as_slice() {
        [one] => one,
        others => panic!("an event is exactly one thing, not {others:?}"),
    }
}

/// The state that an event tells of; none for an artifact.
fn told(event: &Value) -> Option<&str> {
    let status = match kind(event) {
        "task" => &event["task"]["status"],
        "statusUpdate" => &event["statusUpdate"]["status"],
        _ => return None,
    };
    status["state"].as_str()
}

/// The next event, which has to be a task.
async fn opening(events: &mut Events) -> Value {
    let first = events
        .next()
        .await
        .unwrap_or_else(|| panic!("the stream ends before its first event"));
    assert_eq!(kind(&first), "task", "a stream begins with the Task: {first}");
    first["task"].clone()
}

/// The last event tells of this state, and no earlier one of a terminal state.
fn ends_with(events: &[Value], state: &str) {
    let last = events.last().unwrap_or_else(|| panic!("no events"));
    assert_eq!(
        told(last),
        Some(state),
        "a stream ends with the terminal state: {events:?}"
    );
    for event in &events[..events.len() - 1] {
        assert!(
            !told(event).is_some_and(is_terminal),
            "nothing comes after a terminal state: {events:?}"
        );
    }
}

/// The list at a field; empty where the field is not there.
fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}
