//! Back to an earlier revision, and back to nothing.

use serde_json::json;

use crate::operator::{Operator, overlay};

#[tokio::test]
async fn an_earlier_revision_comes_back_as_a_new_one() {
    let operator = Operator::with_local().await;
    let first = operator.server.world().wanted();
    for version in ["0.2.0", "0.3.0"] {
        let config = operator.file(
            "muster.yaml",
            &format!("deploy: {{images: {{tag: '{version}'}}}}"),
        );
        let _applied = operator
            .asked(&["apply", &overlay("local"), "--config", &config])
            .await;
    }
    let back = operator.asked(&["rollback"]).await;
    assert_eq!(back["revision"], 4);
    assert_eq!(
        operator.image("Deployment", "router"),
        "ghcr.io/muster/muster-router:0.2.0"
    );
    let further = operator.asked(&["rollback", "--to", "1"]).await;
    assert_eq!(further["revision"], 5);
    assert_eq!(operator.server.world().wanted(), first);
    let none = operator.deploy(&["rollback", "--to", "9"]).await;
    assert_eq!(none.code, 3, "{none:?}");
    assert!(none.stderr.contains("there are: 1, 2, 3, 4, 5"), "{none:?}");
}

#[tokio::test]
async fn the_last_ten_revisions_are_kept() {
    let operator = Operator::with_local().await;
    for version in 2..=12 {
        let config = operator.file(
            "muster.yaml",
            &format!("deploy: {{images: {{tag: '{version}'}}}}"),
        );
        let _applied = operator
            .asked(&["apply", &overlay("local"), "--config", &config])
            .await;
    }
    let status = operator.asked(&["status"]).await;
    let numbers: Vec<u64> = status["revisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["revision"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (3..=12).collect::<Vec<u64>>());
    assert_eq!(operator.server.world().names("Secret").len(), 10);
}

#[tokio::test]
async fn everything_goes_but_the_volumes_unless_they_go_too() {
    let operator = Operator::with_local().await;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data-redis-0", "namespace": "agent-system"}});
    let foreign = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "of-somebody-else", "namespace": "agent-system"}});
    operator.server.world().put(claim.clone());
    operator.server.world().put(foreign);
    let length = operator.changes();
    let asked = operator.deploy(&["destroy"]).await;
    assert_eq!(asked.code, 2, "{asked:?}");
    assert!(asked.stderr.contains("--yes"), "{asked:?}");
    assert_eq!(operator.changes_since(length), Vec::<String>::new());
    let gone = operator.asked(&["destroy", "--yes"]).await;
    assert_eq!(gone["volumes"], false);
    {
        let world = operator.server.world();
        for kind in [
            "Deployment",
            "StatefulSet",
            "Service",
            "ConfigMap",
            "Role",
            "Secret",
            "Lease",
            "Pod",
        ] {
            assert_eq!(world.names(kind), Vec::<String>::new(), "{kind}");
        }
        assert_eq!(
            world.names("PersistentVolumeClaim"),
            ["data-redis-0", "of-somebody-else"]
        );
        assert_eq!(world.names("Namespace"), ["agent-system"]);
    }
    let status = operator.deploy(&["status"]).await;
    assert_eq!(status.code, 3, "{status:?}");
    // And again, whole; then with all that is left.
    let _applied = operator.asked(&["apply", &overlay("local")]).await;
    let _gone = operator.asked(&["destroy", "--yes", "--volumes"]).await;
    let world = operator.server.world();
    assert_eq!(world.names("Namespace"), Vec::<String>::new());
    assert_eq!(world.names("PersistentVolumeClaim"), Vec::<String>::new());
    let order: Vec<&String> = world
        .changes
        .iter()
        .filter(|change| change.starts_with("delete"))
        .collect();
    let place = |change: &str| order.iter().position(|known| *known == change).unwrap();
    assert!(place("delete statefulset/weather") < place("delete deployment/registry"));
    assert!(place("delete deployment/registry") < place("delete serviceaccount/registry"));
}
