//! Finding runs by what is known of them, and doing one thing to all that are found.

use muster_api::workflow as proto;
use muster_api::workflow::{BulkAction, ListRunsRequest, RunStatus};
use muster_testkit::http;

use crate::harness::{Engine, document, reason};

const QUICK: &str = "  - done: {set: {a: 1}}\n";

impl Engine {
    /// Ids of the runs that a search finds, two at a time.
    pub async fn search(&self, search: ListRunsRequest) -> Vec<String> {
        let (mut found, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListRunsRequest {
                page_size: 2,
                page_token,
                ..search.clone()
            };
            let page = self.client.clone().list_runs(request).await.unwrap().into_inner();
            found.extend(page.runs.into_iter().map(|run| run.run_id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return found;
            }
        }
    }

    /// Does it to all runs that a search finds; their ids with what became of them.
    pub async fn bulk(
        &self,
        action: BulkAction,
        search: ListRunsRequest,
        dry_run: bool,
    ) -> Vec<(String, String)> {
        let (mut outcomes, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = proto::BulkRunsRequest {
                action: action.into(),
                search: Some(ListRunsRequest {
                    page_size: 2,
                    page_token,
                    ..search.clone()
                }),
                reason: "all of them".into(),
                by: "ada".into(),
                dry_run,
            };
            let page = self.client.clone().bulk_runs(request).await.unwrap().into_inner();
            outcomes.extend(page.outcomes.into_iter().map(|outcome| {
                let became = match outcome.done {
                    true => outcome
                        .status()
                        .as_str_name()
                        .trim_start_matches("RUN_STATUS_")
                        .to_owned(),
                    false => outcome.reason,
                };
                (outcome.run_id, became)
            }));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return outcomes;
            }
        }
    }

    async fn labelled(&self, document: &str, id: &str, labels: &[(&str, &str)]) -> Result<(), tonic::Status> {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let request = proto::StartRunRequest {
            run_id: id.to_owned(),
            source: Some(proto::start_run_request::Source::Document(document.to_owned())),
            labels: labels.collect(),
            ..Default::default()
        };
        self.client.clone().start_run(request).await.map(|_| ())
    }
}

fn any() -> ListRunsRequest {
    ListRunsRequest::default()
}

#[tokio::test]
async fn runs_are_found_by_everything_that_is_known_of_them() {
    let mut engine = Engine::start().await;
    let other = document(QUICK)
        .replace("namespace: test", "namespace: other")
        .replace("1.0.0'}", "2.0.0', tags: {team: red}}");
    let late = document("  - nap: {wait: {hours: 1}, timeout: {after: {milliseconds: 1}}}\n");
    engine
        .labelled(&document(QUICK), "a", &[("team", "blue"), ("tier", "one")])
        .await
        .unwrap();
    engine.labelled(&other, "b", &[]).await.unwrap();
    engine.labelled(&other, "c", &[("team", "blue")]).await.unwrap();
    engine.labelled(&late, "d", &[]).await.unwrap();
    for id in ["a", "b", "c"] {
        engine.until(id, RunStatus::Completed).await;
    }
    let ended = engine.until("d", RunStatus::Faulted).await.ended_at;
    engine.restart().await;
    let created = engine.run("c").await.created_at;
    let labels = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>();
    for (search, found) in [
        (any(), vec!["d", "c", "b", "a"]),
        (
            ListRunsRequest {
                namespace: "other".into(),
                ..any()
            },
            vec!["c", "b"],
        ),
        (
            ListRunsRequest {
                version: "2.0.0".into(),
                ..any()
            },
            vec!["c", "b"],
        ),
        (
            ListRunsRequest {
                labels: labels(&["team=blue"]),
                ..any()
            },
            vec!["c", "a"],
        ),
        (
            ListRunsRequest {
                labels: labels(&["team"]),
                ..any()
            },
            vec!["c", "b", "a"],
        ),
        (
            ListRunsRequest {
                labels: labels(&["team=blue", "tier=one"]),
                ..any()
            },
            vec!["a"],
        ),
        (
            ListRunsRequest {
                labels: labels(&["team=red"]),
                namespace: "other".into(),
                ..any()
            },
            vec!["b"],
        ),
        (
            ListRunsRequest {
                error_type: "timeout".into(),
                ..any()
            },
            vec!["d"],
        ),
        (
            ListRunsRequest {
                error_type: "validation".into(),
                ..any()
            },
            vec![],
        ),
        (
            ListRunsRequest {
                created_after: created,
                ..any()
            },
            vec!["d", "c"],
        ),
        (
            ListRunsRequest {
                created_before: created,
                ..any()
            },
            vec!["b", "a"],
        ),
        (
            ListRunsRequest {
                ended_after: ended,
                name: "test".into(),
                statuses: vec![5],
                ..any()
            },
            vec!["d"],
        ),
    ] {
        assert_eq!(engine.search(search.clone()).await, found, "{search:?}");
    }
    let answer = http::get(
        engine.address(),
        "/v1/runs?labels=team%3Dblue&labels=tier&createdAfter=2020-01-01T00:00:00Z",
    )
    .await
    .unwrap();
    let runs = answer.json()["runs"].take();
    assert_eq!(
        (runs.as_array().map(Vec::len), &runs[0]["labels"]["tier"]),
        (Some(1), &"one".into()),
        "{runs}"
    );

    let refused = engine
        .labelled(&document(QUICK), "e", &[("no key", "")])
        .await
        .unwrap_err();
    assert!(
        refused.message().starts_with("labels: 'no key' is no key"),
        "{refused}"
    );
    let request = ListRunsRequest {
        labels: labels(&["=x"]),
        ..any()
    };
    let refused = engine.client.clone().list_runs(request).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_FIELD");
}

#[tokio::test]
async fn one_thing_is_done_to_all_that_a_search_finds() {
    let engine = Engine::start().await;
    let nap = document("  - nap: {wait: {hours: 1}}\n");
    for number in 0..5 {
        engine
            .labelled(&nap, &format!("r{number}"), &[("batch", "1")])
            .await
            .unwrap();
        engine.until(&format!("r{number}"), RunStatus::Waiting).await;
    }
    engine.start_run(&nap, "bystander", "").await.unwrap();
    let batch = || ListRunsRequest {
        labels: vec!["batch=1".into()],
        ..any()
    };
    let all = |became: &str| -> Vec<(String, String)> {
        (0..5)
            .rev()
            .map(|number| (format!("r{number}"), became.to_owned()))
            .collect()
    };
    assert_eq!(
        engine.bulk(BulkAction::Cancel, batch(), true).await,
        all("WAITING")
    );
    assert_eq!(
        engine.bulk(BulkAction::Pause, batch(), false).await,
        all("PAUSED")
    );
    assert!(
        engine
            .history("r0")
            .await
            .last()
            .unwrap()
            .data_json
            .contains("all of them")
    );
    assert_eq!(
        engine.bulk(BulkAction::Resume, batch(), false).await,
        all("WAITING")
    );
    assert_eq!(
        engine.bulk(BulkAction::Delete, batch(), false).await,
        all("RUN_ACTIVE")
    );
    assert_eq!(
        engine.bulk(BulkAction::Cancel, batch(), false).await,
        all("CANCELLED")
    );
    assert_eq!(
        engine.bulk(BulkAction::Cancel, batch(), false).await,
        all("RUN_ENDED")
    );
    assert_eq!(
        engine.bulk(BulkAction::Retry, batch(), false).await,
        all("WAITING")
    );
    let paused = || ListRunsRequest {
        statuses: vec![RunStatus::Waiting.into(), RunStatus::Running.into()],
        ..batch()
    };
    assert_eq!(
        engine.bulk(BulkAction::Terminate, paused(), false).await,
        all("CANCELLED"),
        "found by what they stop being"
    );
    assert_eq!(
        engine.bulk(BulkAction::Delete, batch(), false).await,
        all("UNSPECIFIED")
    );
    assert_eq!(engine.search(any()).await, ["bystander"]);

    let request = proto::BulkRunsRequest {
        action: BulkAction::Delete.into(),
        ..Default::default()
    };
    let refused = engine.client.clone().bulk_runs(request).await.unwrap_err();
    assert!(refused.message().contains("finds every run"), "{refused}");
    let request = proto::BulkRunsRequest {
        search: Some(batch()),
        ..Default::default()
    };
    let refused = engine.client.clone().bulk_runs(request).await.unwrap_err();
    assert!(refused.message().starts_with("action: "), "{refused}");
    engine.terminate("bystander").await.unwrap();
}

#[tokio::test]
async fn the_token_of_another_search_is_refused() {
    let engine = Engine::start().await;
    for id in ["a", "b", "c"] {
        engine
            .start_run(&document("  - a: {set: {n: 1}}\n"), id, "")
            .await
            .unwrap();
        engine.until(id, RunStatus::Completed).await;
    }
    let list = async |name: &str, page_token: &str| {
        let request = proto::ListRunsRequest {
            name: name.to_owned(),
            page_size: 1,
            page_token: page_token.to_owned(),
            ..Default::default()
        };
        engine.client.clone().list_runs(request).await
    };
    let token = list("test", "").await.unwrap().into_inner().next_page_token;
    list("test", &token).await.unwrap();
    let refused = list("", &token).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_PAGE_TOKEN", "{refused:?}");
    let history = async |id: &str, page_token: &str| {
        let request = proto::GetHistoryRequest {
            run_id: id.to_owned(),
            page_size: 1,
            page_token: page_token.to_owned(),
        };
        engine.client.clone().get_history(request).await
    };
    let token = history("a", "").await.unwrap().into_inner().next_page_token;
    history("a", &token).await.unwrap();
    let refused = history("b", &token).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_PAGE_TOKEN", "{refused:?}");
}
