//! Into a cluster: from nothing, again, another version.

use serde_json::Value;

use crate::operator::{HOSTS, Operator, overlay};

/// Where a change stands among others.
fn place(changes: &[String], change: &str) -> usize {
    let found = changes.iter().position(|known| known == change);
    found.unwrap_or_else(|| panic!("{change} is not among {changes:?}"))
}

#[tokio::test]
async fn an_overlay_comes_from_nothing_in_order_and_again_changes_nothing() {
    let operator = Operator::new().await;
    let first = operator.asked(&["apply", &overlay("local")]).await;
    assert_eq!(first["revision"], 1);
    let changes = operator.changes_since(0);
    let order = [
        "apply namespace/agent-system",
        "apply serviceaccount/router",
        "apply service/router",
        "apply statefulset/redis",
        "apply deployment/registry",
        "apply deployment/router",
        "apply statefulset/workflow-engine",
        "apply statefulset/weather",
    ];
    assert!(
        order.map(|change| place(&changes, change)).is_sorted(),
        "{changes:?}"
    );
    {
        let world = operator.server.world();
        let owners = world
            .get("Deployment", "router")
            .unwrap()
            .pointer("/metadata/managedFields/0/manager");
        assert_eq!(owners, Some(&"muster".into()));
    }
    let length = operator.changes();
    let again = operator.asked(&["apply", &overlay("local")]).await;
    assert_eq!(again["revision"], 1, "nothing is new");
    assert_eq!(again["changed"], Value::Array(Vec::new()));
    assert_eq!(again["unchanged"], first["changed"].as_array().unwrap().len());
    assert_eq!(operator.changes_since(length), Vec::<String>::new());
    let diff = operator.deploy(&["diff", &overlay("local")]).await.success();
    assert_eq!(diff.stdout, "nothing differs\n");
    let status = operator.asked(&["status"]).await;
    assert_eq!(status["well"], true);
    assert_eq!(status["workloads"].as_array().unwrap().len(), 9, "{status}");
}

#[tokio::test]
async fn production_comes_with_its_canary_and_the_values_of_the_system_configuration() {
    let operator = Operator::new().await;
    let config = operator.file(
        "muster.yaml",
        &format!(
            "{HOSTS}  images: {{registry: registry.acme.test/agents, tag: '2.0'}}\n  replicas: {{router: {{min: 4, max: 8}}}}\n\
             telemetry: {{log_level: DEBUG}}\nrouter: {{message_queue_size: 77}}\n"
        ),
    );
    let applied = operator
        .asked(&["apply", &overlay("production"), "--config", &config])
        .await;
    assert_eq!(applied["revision"], 1);
    let changes = operator.changes_since(0);
    let order = [
        "apply virtualservice/router",
        "apply statefulset/redis-cluster",
        "apply deployment/registry",
        "apply rollout/router",
        "apply statefulset/workflow-engine",
        "apply statefulset/weather",
        "apply horizontalpodautoscaler/router",
        "apply podmonitor/muster",
    ];
    let order: Vec<usize> = order
        .iter()
        .filter(|change| changes.iter().any(|known| known == *change) || !change.contains("podmonitor"))
        .map(|change| place(&changes, change))
        .collect();
    assert!(order.is_sorted(), "{changes:?}");
    assert_eq!(
        operator.image("Deployment", "router"),
        "registry.acme.test/agents/muster-router:2.0"
    );
    let world = operator.server.world();
    assert_eq!(
        world.get("Rollout", "router").unwrap()["status"]["phase"],
        "Healthy"
    );
    assert_eq!(
        world.get("HorizontalPodAutoscaler", "router").unwrap()["spec"]["minReplicas"],
        4
    );
    let router = world.get("Deployment", "router").unwrap();
    let variables = router
        .pointer("/spec/template/spec/containers/0/env")
        .unwrap()
        .as_array()
        .unwrap();
    let value = |name: &str| {
        let found = variables.iter().find(|one| one["name"] == name);
        found.unwrap_or_else(|| panic!("{name} in {variables:?}"))["value"].clone()
    };
    assert_eq!(value("MUSTER__ROUTER__MESSAGE_QUEUE_SIZE"), "77");
    assert_eq!(value("MUSTER__TELEMETRY__LOG_LEVEL"), "DEBUG");
    assert_eq!(
        value("MUSTER__ROUTER__PUBLIC_URL"),
        "https://router.agents.acme.test:443"
    );
}

#[tokio::test]
async fn another_version_is_rolled_out_in_order_and_only_where_it_is_another() {
    let operator = Operator::with_local().await;
    let config = operator.file("muster.yaml", "deploy: {images: {tag: '0.2.0'}}");
    let arguments = [&overlay("local"), "--config", &config];
    let diff = operator
        .deploy(&[&["diff"], &arguments[..]].concat())
        .await
        .success()
        .stdout;
    let expected = "~ deployment/registry\n    spec.template.spec.containers[service].image: \
                    ghcr.io/muster/muster-registry:0.1.0 → ghcr.io/muster/muster-registry:0.2.0\n";
    assert!(diff.contains(expected), "{diff}");
    assert!(!diff.contains("redis"), "{diff}");
    let length = operator.changes();
    let applied = operator
        .deploy(&[&["apply"], &arguments[..]].concat())
        .await
        .success();
    let changes = operator.changes_since(length);
    assert_eq!(changes.len(), 8, "{changes:?}");
    assert_eq!(
        changes[..3],
        [
            "apply deployment/registry",
            "apply deployment/router",
            "apply statefulset/workflow-engine"
        ]
    );
    assert!(
        applied.stdout.starts_with("0 created, 8 changed, 0 removed,"),
        "{applied:?}"
    );
    let status = operator.asked(&["status"]).await;
    assert_eq!(status["revision"], 2);
    for workload in status["workloads"].as_array().unwrap() {
        let image = workload["images"][0].as_str().unwrap();
        assert!(image.contains("redis") || image.ends_with(":0.2.0"), "{workload}");
    }
}

#[tokio::test]
async fn status_of_an_overlay_is_that_of_its_namespace_and_says_whether_it_is_applied() {
    let operator = Operator::new().await;
    let config = operator.file("muster.yaml", "deploy: {namespace: agents}");
    let arguments = [&overlay("local"), "--config", &config];
    let status = [&["status"], &arguments[..]].concat();
    let nothing = operator.deploy(&status).await;
    assert_eq!(nothing.code, 3, "{nothing:?}");
    assert!(nothing.stderr.contains("to the namespace agents"), "{nothing:?}");
    let _applied = operator.asked(&[&["apply"], &arguments[..]].concat()).await;
    let said = operator.asked(&status).await;
    assert_eq!(
        (&said["namespace"], &said["well"]),
        (&"agents".into(), &true.into()),
        "{said}"
    );
    assert_eq!(said["asWanted"], true, "{said}");
    // The overlay says something else now; what was applied is as well as before.
    let config = operator.file(
        "muster.yaml",
        "deploy: {namespace: agents, images: {tag: '0.2.0'}}",
    );
    let other = [&overlay("local"), "--config", &config];
    let said = operator.asked(&[&["status"], &other[..]].concat()).await;
    assert_eq!(
        (&said["asWanted"], &said["well"]),
        (&false.into(), &true.into()),
        "{said}"
    );
    let text = operator
        .deploy(&[&["status"], &other[..]].concat())
        .await
        .success();
    assert!(text.stdout.contains("`muster deploy diff` shows it"), "{text:?}");
    let by_name = operator.asked(&["status", "--namespace", "agents"]).await;
    assert_eq!(by_name["revision"], 1);
    assert!(by_name.get("asWanted").is_none(), "{by_name}");
    let both = operator
        .deploy(&["status", &overlay("local"), "--namespace", "agents"])
        .await;
    assert_eq!(both.code, 2, "{both:?}");
}

#[tokio::test]
async fn what_is_no_longer_wanted_goes_and_what_others_made_stays() {
    let operator = Operator::new().await;
    let list = operator.asked(&["render", &overlay("local")]).await;
    let whole = operator.file("whole.json", &list.to_string());
    let _applied = operator.asked(&["apply", &whole]).await;
    operator
        .server
        .world()
        .put(serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "of-somebody-else", "namespace": "agent-system"}}));
    let mut less = list.clone();
    let is_planning =
        |item: &Value| item["kind"] == "Service" && item["metadata"]["name"] == "planning-instances";
    less["items"]
        .as_array_mut()
        .unwrap()
        .retain(|item| !is_planning(item) && item["kind"] != "Namespace");
    let less = operator.file("less.json", &less.to_string());
    let diff = operator.deploy(&["diff", &less]).await.success().stdout;
    assert_eq!(diff, "- service/planning-instances\n");
    let length = operator.changes();
    let _applied = operator.asked(&["apply", &less]).await;
    assert_eq!(
        operator.changes_since(length),
        ["delete service/planning-instances"]
    );
    let world = operator.server.world();
    assert!(world.get("ConfigMap", "of-somebody-else").is_some());
    assert!(world.get("Namespace", "agent-system").is_some());
}
