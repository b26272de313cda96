//! The router while the registry is away, and when it comes back knowing nobody.

use muster_testkit::{http, wait_for};

use crate::harness::{PATIENCE, Service, Stack, message};

#[tokio::test]
async fn routing_goes_on_from_the_last_view_which_is_called_stale() {
    let mut stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    assert!(!stack.status().await.view_stale);

    let registry = stack.registry.take().unwrap();
    let address = registry.address;
    registry.stop().await;
    wait_for("the view to be stale", PATIENCE, async || {
        stack.status().await.view_stale
    })
    .await;
    stack.send(message("weather", "x")).await.unwrap();
    let card = http::get(stack.router.address, "/weather/.well-known/agent-card.json")
        .await
        .unwrap();
    assert_eq!(card.status, 200);

    // It comes back empty, as a registry in memory does; the agent has not registered again yet.
    stack.registry = Some(Service::registry(address.port()));
    wait_for("the view to be fresh", PATIENCE, async || {
        !stack.status().await.view_stale
    })
    .await;
    stack.send(message("weather", "y")).await.unwrap();

    stack.register(agent.instance(&["forecasting"])).await;
    stack.send(message("weather", "z")).await.unwrap();
    assert_eq!(agent.calls().len(), 3);
}
