//! What A2A 1.0 demands of a server, and the cases that show it, each of which runs on all three bindings against an agent of the SDK
//! and against the router. The list is checked in both directions: a demand without a case and a case that shows none are mistakes.

use std::collections::BTreeSet;

use crate::cases;

const MUSTS: &[(&str, &[&str])] = &[
    // Discovery.
    (
        "the card is at /.well-known/agent-card.json, with its required fields",
        &["card_is_discoverable"],
    ),
    ("the card may be cached: max-age and an ETag", &["card_is_cached"]),
    (
        "every binding is declared in the card, with its address and version",
        &["card_declares_the_binding"],
    ),
    (
        "what callers have to show is declared in the card",
        &["credentials_are_declared", "credentials_are_demanded"],
    ),
    (
        "an extended card is served where it is declared, to callers who are known",
        &["extended_card_is_served", "credentials_are_demanded"],
    ),
    // Versions and extensions.
    (
        "a version that is not supported is VersionNotSupported, and so is silence, which means 0.3",
        &[
            "another_version_is_refused",
            "another_version_in_the_query_is_refused",
            "no_version_means_0_3",
        ],
    ),
    (
        "patch versions are not considered",
        &["patch_versions_do_not_matter"],
    ),
    (
        "a required extension that is not named, in exactly this version, is ExtensionSupportRequired",
        &[
            "a_required_extension_is_required",
            "a_required_extension_that_is_named_serves",
        ],
    ),
    (
        "other extensions change nothing",
        &["other_extensions_are_ignored"],
    ),
    // Bindings.
    (
        "every binding has all operations, with the same results",
        &["bindings_agree", "content_survives", "operations_take_a_tenant"],
    ),
    (
        "JSON is ProtoJSON: camelCase, names of enums, times in UTC",
        &["json_is_proto_json"],
    ),
    (
        "JSON-RPC 2.0: envelopes, ids, errors of its own",
        &["json_that_is_none", "envelopes_are_checked", "unknown_methods"],
    ),
    (
        "JSON-RPC answers with a slash at the end, too",
        &["a_slash_at_the_end"],
    ),
    (
        "HTTP+JSON speaks application/a2a+json, and takes application/json",
        &[
            "media_types",
            "both_media_types_are_taken",
            "other_media_types_are_refused",
        ],
    ),
    (
        "HTTP+JSON has :subscribe by GET, as in the proto, and by POST, as in the text",
        &["subscribe_by_get_and_post"],
    ),
    // Errors, each with its number on each binding, and with an ErrorInfo in the domain of A2A.
    (
        "TaskNotFound",
        &[
            "an_unknown_task_is_not_found",
            "a_client_cannot_make_a_task_id",
            "configs_belong_to_known_tasks",
        ],
    ),
    ("TaskNotCancelable", &["a_terminal_task_is_not_cancelable"]),
    ("PushNotificationNotSupported", &["without_push_it_is_refused"]),
    (
        "UnsupportedOperation",
        &[
            "a_terminal_task_has_no_subscription",
            "extended_card_unsupported",
            "without_streaming_it_is_refused",
        ],
    ),
    ("ContentTypeNotSupported", &["content_types_are_checked"]),
    ("InvalidAgentResponse", &["nonsense_of_an_agent_is_told"]),
    (
        "ExtendedAgentCardNotConfigured",
        &["extended_card_not_configured"],
    ),
    ("ExtensionSupportRequired", &["a_required_extension_is_required"]),
    ("VersionNotSupported", &["another_version_is_refused"]),
    (
        "all input is validated before anything is done",
        &[
            "a_request_needs_a_message",
            "a_message_needs_its_fields",
            "a_part_needs_content",
            "enums_are_checked",
            "an_operation_needs_its_task",
            "types_are_checked",
            "a_config_needs_a_url",
            "streamed_messages_are_checked",
            "sizes_out_of_bounds",
            "a_false_cursor_is_invalid",
        ],
    ),
    // Who may what.
    (
        "every request is authenticated before any lookup",
        &["credentials_are_demanded"],
    ),
    (
        "every request is authorized before any lookup",
        &["roles_are_demanded"],
    ),
    (
        "nothing is revealed to who is not authorized, not even that it exists",
        &["anothers_task_is_not_there"],
    ),
    (
        "ListTasks is scoped to the caller",
        &["lists_show_what_is_the_callers"],
    ),
    // Sending.
    (
        "an answer is a task or a message",
        &["send_answers_with_the_task", "an_answer_may_be_a_message"],
    ),
    (
        "SendMessage waits until the task is terminal, or until INPUT_REQUIRED or AUTH_REQUIRED",
        &[
            "send_waits_for_a_terminal_state",
            "send_waits_for_input_required",
            "send_waits_for_auth_required",
        ],
    ),
    (
        "with return_immediately it does not wait",
        &["send_returns_immediately"],
    ),
    (
        "the answer has the task's state and all artifacts",
        &["a_task_is_read", "failures_are_states"],
    ),
    ("task ids are made by the server", &["task_ids_are_the_servers"]),
    (
        "a message that is sent again may be known by its id: ours are",
        &["a_message_sent_again_is_one_task"],
    ),
    (
        "a message to a terminal task is UnsupportedOperation",
        &[
            "a_terminal_task_takes_no_message",
            "a_terminal_task_takes_no_streamed_message",
        ],
    ),
    (
        "a message to an interrupted task continues it",
        &["an_interrupted_task_goes_on"],
    ),
    // Contexts and history.
    (
        "contextId is made where there is none, and kept where there is one",
        &["a_context_is_generated", "a_context_is_preserved"],
    ),
    ("contextId is inferred from taskId", &["a_context_is_inferred"]),
    (
        "contextId and taskId that do not match are rejected",
        &["a_context_that_does_not_match_is_rejected"],
    ),
    (
        "historyLength means the same everywhere: none at 0, at most n",
        &[
            "send_keeps_to_the_history_length",
            "get_keeps_to_the_history_length",
            "list_keeps_to_the_history_length",
        ],
    ),
    // Lists.
    (
        "ListTasks is sorted by the last update, newest first",
        &["newest_first"],
    ),
    (
        "ListTasks has pages by cursors, of 50, or up to 100",
        &["pages_follow_cursors", "pages_have_50_by_default_and_100_at_most"],
    ),
    (
        "nextPageToken is always there, and empty on the last page",
        &["next_page_token_is_always_there"],
    ),
    (
        "artifacts are left out unless they are asked for",
        &["artifacts_only_on_request"],
    ),
    ("ListTasks filters by status and time", &["by_status", "by_time"]),
    // Canceling.
    (
        "CancelTask cancels what has not ended, and again changes nothing",
        &[
            "a_working_task_is_canceled",
            "an_interrupted_task_is_canceled",
            "a_terminal_task_is_not_cancelable",
        ],
    ),
    // Streams.
    (
        "a stream is one Message, or a Task and its updates up to a terminal state, and then ends",
        &[
            "a_stream_is_a_task_and_its_updates",
            "a_stream_may_be_one_message",
            "a_canceled_task_ends_its_streams",
        ],
    ),
    (
        "SubscribeToTask begins with a snapshot of the Task and ends with its terminal state",
        &[
            "a_subscription_begins_with_the_task",
            "a_subscription_outlasts_interruptions",
        ],
    ),
    (
        "SubscribeToTask of a terminal task is UnsupportedOperation",
        &["a_terminal_task_has_no_subscription"],
    ),
    (
        "events come in the order in which they were made",
        &["events_are_in_order"],
    ),
    (
        "all streams of a task get the same events in the same order",
        &["streams_of_a_task_are_alike", "a_slow_stream_misses_nothing"],
    ),
    (
        "closing a stream leaves the others and the task alone",
        &["a_closed_stream_leaves_the_others"],
    ),
    (
        "an agent whose card does not say that it streams refuses streams and subscriptions with UnsupportedOperation",
        &["without_streaming_it_is_refused"],
    ),
    // Push notifications.
    (
        "configurations persist until they are deleted; deleting is idempotent",
        &["configs_are_kept", "configs_come_in_pages"],
    ),
    (
        "delivery is attempted at least once, with the credentials, as a StreamResponse in application/a2a+json",
        &[
            "updates_are_delivered",
            "a_failed_delivery_is_retried",
            "a_refused_delivery_is_not_the_last",
            "a_message_may_bring_its_config",
        ],
    ),
    (
        "nothing is sent to a configuration after its deletion",
        &["a_deleted_config_is_silent"],
    ),
];

#[test]
fn every_demand_has_a_case_and_every_case_shows_one() {
    let cases: BTreeSet<&str> = cases::names().collect();
    let mut shown = BTreeSet::new();
    for (must, named) in MUSTS {
        assert!(!named.is_empty(), "'{must}' has no case");
        for case in *named {
            assert!(cases.contains(case), "'{must}' names '{case}', which is no case");
            shown.insert(*case);
        }
    }
    let idle: Vec<_> = cases.difference(&shown).collect();
    assert!(
        idle.is_empty(),
        "these cases show nothing that is demanded: {idle:?}"
    );
}
