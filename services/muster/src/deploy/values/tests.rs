use super::*;

fn overlay() -> Vec<Object> {
    manifest::parse(
        r#"
apiVersion: v1
kind: Namespace
metadata: {name: agent-system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: muster-abc, namespace: agent-system}
data: {MUSTER__SERVER__HOST: 0.0.0.0, MUSTER__TRUST__MODE: mesh}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: router, namespace: agent-system}
spec:
  template:
    spec:
      containers:
        - name: service
          image: ghcr.io/muster/muster-router:0.1.0
          envFrom: [{configMapRef: {name: muster-abc}}]
          env:
            - {name: MUSTER__ROUTER__REGISTRY_URL, value: "http://registry:50051"}
            - {name: MUSTER__ROUTER__PUBLIC_URL, value: "https://router.agents.example.com:443"}
            - {name: MUSTER__ROUTER__DATA_DIRECTORY, value: ""}
        - {name: other, image: "docker.io/library/redis:7"}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: router, namespace: agent-system}
spec: {scaleTargetRef: {name: router}, minReplicas: 3, maxReplicas: 20}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: router, namespace: agent-system}
spec: {host: router.agent-system.svc.cluster.local}
"#,
    )
    .unwrap()
}

fn system(text: &str) -> System {
    yaml_serde::from_str(text).unwrap()
}

fn router(objects: &[Object]) -> &Value {
    let router = objects
        .iter()
        .find(|object| object.kind() == "Deployment")
        .unwrap();
    router.value()
}

fn variable<'a>(objects: &'a [Object], name: &str) -> Option<&'a str> {
    let list = router(objects)
        .pointer("/spec/template/spec/containers/0/env")?
        .as_array()?;
    let found: Vec<_> = list.iter().filter(|one| one["name"] == name).collect();
    assert!(found.len() < 2, "{name} is there twice");
    found.first()?["value"].as_str()
}

#[test]
fn without_a_configuration_everything_is_as_the_overlay_says() {
    assert_eq!(System::default().lay_over(overlay()).unwrap(), overlay());
}

#[test]
fn images_replicas_hosts_and_settings_are_set() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let file = format!(
        r"
deploy:
  images: {{registry: registry.acme.test/agents/, tag: '2.0', digests: {{muster-router: '{digest}'}}}}
  replicas: {{router: {{min: 5, max: 9}}}}
  hosts: {{agents.example.com: agents.acme.test}}
telemetry: {{log_level: DEBUG}}
router: {{message_queue_size: 77, outbound: {{allow: [10.0.0.0/8]}}}}
"
    );
    let objects = system(&file).lay_over(overlay()).unwrap();
    let image = |index: usize| {
        let pointer = format!("/spec/template/spec/containers/{index}/image");
        router(&objects)
            .pointer(&pointer)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        image(0),
        format!("registry.acme.test/agents/muster-router@{digest}")
    );
    assert_eq!(image(1), "docker.io/library/redis:7");
    let scaler = objects
        .iter()
        .find(|object| object.kind() == "HorizontalPodAutoscaler")
        .unwrap();
    assert_eq!(scaler.value()["spec"]["minReplicas"], 5);
    assert_eq!(scaler.value()["spec"]["maxReplicas"], 9);
    for (name, value) in [
        (
            "MUSTER__ROUTER__PUBLIC_URL",
            "https://router.agents.acme.test:443",
        ),
        ("MUSTER__TELEMETRY__LOG_LEVEL", "DEBUG"),
        ("MUSTER__ROUTER__MESSAGE_QUEUE_SIZE", "77"),
        ("MUSTER__ROUTER__OUTBOUND__ALLOW", "[\"10.0.0.0/8\"]"),
    ] {
        assert_eq!(variable(&objects, name), Some(value), "{name}");
    }
}

#[test]
fn another_namespace_is_meant_wherever_the_old_one_is_named() {
    let objects = system("deploy: {namespace: acme}").lay_over(overlay()).unwrap();
    assert_eq!(manifest::namespace(&objects).as_deref(), Some("acme"));
    let text = manifest::print(&objects).unwrap();
    assert!(!text.contains("agent-system"), "{text}");
    assert!(text.contains("router.acme.svc.cluster.local"), "{text}");
    assert_eq!(variable(&objects, "MUSTER__TRUST__NAMESPACE"), Some("acme"));
}

#[test]
fn all_mistakes_are_reported_at_once_each_with_its_key() {
    let file = r"
deploy:
  namespace: Not A Name
  images: {tag: 'a b', digests: {muster-nobody: x}}
  replicas: {nobody: 3, router: 0}
  hosts: {nowhere.example.com: x.test}
router: {message_queue_size: many, nonsense: 1, redis_cluster_endpoint: 'redis://:hunter2@redis:6379'}
agents: {nobody: {}}
";
    let message = system(file).lay_over(overlay()).unwrap_err().message;
    for key in [
        "deploy.namespace",
        "deploy.images.tag",
        "deploy.images.digests.muster-nobody",
        "deploy.replicas.nobody",
        "deploy.replicas.router",
        "deploy.hosts.nowhere.example.com",
        "router: router.message_queue_size",
        "router: router.nonsense",
        "agents.nobody",
    ] {
        assert!(message.contains(key), "{key} in {message}");
    }
    assert!(!message.contains("hunter2"), "{message}");
    let secret = system("router: {redis_cluster_endpoint: 'redis://:hunter2@redis:6379'}");
    let message = secret.lay_over(overlay()).unwrap_err().message;
    assert!(
        message.contains("router.redis_cluster_endpoint: is a secret"),
        "{message}"
    );
    assert!(!message.contains("hunter2"), "{message}");
}
