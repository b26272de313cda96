//! What does not get well, and what becomes of it.

use muster_testkit::wait_for;
use muster_tests::PATIENCE;

use crate::operator::{DIGEST, HOSTS, Operator, overlay};

/// A configuration in which one image cannot be pulled.
fn broken(operator: &Operator, image: &str, more: &str) -> String {
    operator.server.world().broken = Some(DIGEST.to_owned());
    let deploy = if more.is_empty() { "deploy:\n" } else { more };
    operator.file(
        "broken.yaml",
        &format!("{deploy}  images: {{tag: '0.2.0', digests: {{{image}: '{DIGEST}'}}}}\n"),
    )
}

#[tokio::test]
async fn a_workload_that_does_not_get_well_is_taken_back_and_says_which_pod_and_why() {
    let operator = Operator::with_local().await;
    let before = operator.server.world().wanted();
    let config = broken(&operator, "muster-workflow-engine", "");
    let length = operator.changes();
    let applied = operator
        .deploy(&["apply", &overlay("local"), "--config", &config, "--timeout", "4"])
        .await;
    assert_eq!(applied.code, 1, "{applied:?}");
    for said in [
        "statefulset/workflow-engine",
        "pod workflow-engine-0: container service is in ImagePullBackOff",
        DIGEST,
        "everything is back at revision 1, and well",
    ] {
        assert!(applied.stderr.contains(said), "{said} in {applied:?}");
    }
    let changes = operator.changes_since(length);
    assert!(
        !changes.iter().any(|change| change.contains("weather")),
        "what depends on it is not touched: {changes:?}"
    );
    assert!(
        changes.contains(&"delete pod/workflow-engine-0".to_owned()),
        "{changes:?}"
    );
    assert_eq!(operator.server.world().wanted(), before);
    let status = operator.asked(&["status"]).await;
    assert_eq!((&status["well"], &status["revision"]), (&true.into(), &1.into()));
}

#[tokio::test]
async fn a_canary_that_is_not_good_is_taken_back() {
    let operator = Operator::new().await;
    let hosts = operator.file("hosts.yaml", HOSTS);
    let arguments = ["apply", &overlay("production"), "--config"];
    let _applied = operator.asked(&[&arguments[..], &[&hosts]].concat()).await;
    let before = operator.server.world().wanted();
    let config = broken(&operator, "muster-router", HOSTS);
    let applied = operator.deploy(&[&arguments[..], &[&config]].concat()).await;
    assert_eq!(applied.code, 1, "{applied:?}");
    assert!(
        applied
            .stderr
            .contains("rollout/router: its canary was not good: the analysis run failed"),
        "{applied:?}"
    );
    assert!(
        applied
            .stderr
            .contains("everything is back at revision 1, and well"),
        "{applied:?}"
    );
    assert_eq!(operator.server.world().wanted(), before);
}

#[tokio::test]
async fn the_first_rollout_that_fails_stays_to_be_looked_at() {
    let operator = Operator::new().await;
    let config = broken(&operator, "muster-registry", "");
    let applied = operator
        .deploy(&["apply", &overlay("local"), "--config", &config, "--timeout", "3"])
        .await;
    assert_eq!(applied.code, 1, "{applied:?}");
    assert!(
        applied.stderr.contains("there is no revision to go back to"),
        "{applied:?}"
    );
    assert!(operator.server.world().get("Deployment", "registry").is_some());
    assert!(operator.server.world().get("Deployment", "router").is_none());
    // Mended, it goes on from there.
    let applied = operator.asked(&["apply", &overlay("local")]).await;
    assert_eq!(applied["revision"], 1);
}

#[tokio::test]
async fn killed_half_way_and_given_again_it_comes_to_the_same() {
    let unbroken = Operator::with_local().await;
    let operator = Operator::new().await;
    operator.server.world().held.insert("router".to_owned());
    let process = operator.program(&["apply", &overlay("local")]).start();
    wait_for("the router's rollout", PATIENCE, async || {
        operator
            .server
            .world()
            .changes
            .contains(&"apply deployment/router".to_owned())
    })
    .await;
    process.kill().await;
    operator.server.world().held.clear();
    let again = operator.deploy(&["apply", &overlay("local")]).await.success();
    assert!(again.stderr.contains("holds the lease; looking for"), "{again:?}");
    assert_eq!(operator.server.world().wanted(), unbroken.server.world().wanted());
    assert_eq!(operator.asked(&["status"]).await["well"], true);
}

#[tokio::test]
async fn an_interrupt_takes_back_what_was_changed() {
    let operator = Operator::with_local().await;
    let before = operator.server.world().wanted();
    let config = operator.file("muster.yaml", "deploy: {images: {tag: '0.2.0'}}");
    operator.server.world().held.insert("router".to_owned());
    let mut process = operator
        .program(&["apply", &overlay("local"), "--config", &config])
        .start();
    wait_for("the router's rollout", PATIENCE, async || {
        operator.image("Deployment", "router").ends_with(":0.2.0")
    })
    .await;
    process.signal("INT").await;
    wait_for("the way back", PATIENCE, async || {
        operator.image("Deployment", "router").ends_with(":0.1.0")
    })
    .await;
    operator.server.world().held.clear();
    assert_eq!(process.exit().await.code(), Some(1));
    assert!(
        process
            .stderr()
            .contains("everything is back at revision 1, and well"),
        "{}",
        process.stderr()
    );
    assert_eq!(operator.server.world().wanted(), before);
}

#[tokio::test]
async fn two_operators_do_not_change_it_at_once() {
    let operator = Operator::with_local().await;
    let config = operator.file("muster.yaml", "deploy: {images: {tag: '0.2.0'}}");
    operator.server.world().held.insert("router".to_owned());
    let mut first = operator
        .program(&["apply", &overlay("local"), "--config", &config])
        .start();
    wait_for("the router's rollout", PATIENCE, async || {
        operator.image("Deployment", "router").ends_with(":0.2.0")
    })
    .await;
    let length = operator.changes();
    let second = operator.deploy(&["apply", &overlay("local")]).await;
    assert_eq!(second.code, 4, "{second:?}");
    assert!(
        second.stderr.contains("another `muster deploy` is at work here"),
        "{second:?}"
    );
    assert!(
        second.stderr.contains(&format!("-{}-", first.id().unwrap())),
        "{second:?}"
    );
    assert_eq!(operator.changes_since(length), Vec::<String>::new());
    operator.server.world().held.clear();
    assert_eq!(first.exit().await.code(), Some(0), "{}", first.stderr());
}

#[tokio::test]
async fn fields_of_others_are_left_alone_unless_they_are_taken_over() {
    let operator = Operator::with_local().await;
    operator.server.world().set_as(
        "somebody",
        "Deployment",
        "router",
        "/spec/template/spec/containers/0/image",
        "theirs:1",
    );
    let before = operator.server.world().wanted();
    let config = operator.file("muster.yaml", "deploy: {images: {tag: '0.2.0'}}");
    let arguments = ["apply", &overlay("local"), "--config", &config];
    let applied = operator.deploy(&arguments).await;
    assert_eq!(applied.code, 1, "{applied:?}");
    for said in [
        "deployment/router: spec.template.spec.containers[name=\"service\"].image",
        "somebody",
        "--force-conflicts",
    ] {
        assert!(applied.stderr.contains(said), "{said} in {applied:?}");
    }
    assert_eq!(
        operator.server.world().wanted(),
        before,
        "nothing is changed before all is known"
    );
    let _applied = operator
        .deploy(&[&arguments[..], &["--force-conflicts"]].concat())
        .await
        .success();
    assert_eq!(
        operator.image("Deployment", "router"),
        "ghcr.io/muster/muster-router:0.2.0"
    );
}

#[tokio::test]
async fn a_server_that_is_away_for_a_moment_is_asked_again() {
    let operator = Operator::new().await;
    operator.server.world().hiccups = vec![503, 429, 500, 504];
    let applied = operator.asked(&["apply", &overlay("local")]).await;
    assert_eq!(applied["revision"], 1);
    assert_eq!(operator.server.world().hiccups, Vec::<u16>::new());
}

#[tokio::test]
async fn who_is_not_known_or_finds_nobody_is_told_so() {
    let operator = Operator::new().await;
    operator.server.kubeconfig_with("of-yesterday");
    let refused = operator.deploy(&["apply", &overlay("local")]).await;
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("log in again"), "{refused:?}");
    let missing = operator.deploy(&["status", "--kubeconfig", "/nowhere"]).await;
    assert_eq!(missing.code, 2, "{missing:?}");
    assert!(missing.stderr.contains("kubeconfig"), "{missing:?}");
    let nobody = operator.file(
        "nobody",
        &std::fs::read_to_string(operator.server.kubeconfig())
            .unwrap()
            .replace("127.0.0.1", "127.0.0.2"),
    );
    let away = operator.deploy(&["status", "--kubeconfig", &nobody]).await;
    assert_eq!(away.code, 5, "{away:?}");
    assert!(away.stderr.contains("does not answer"), "{away:?}");
}
