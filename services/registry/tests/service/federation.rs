//! Registries of several regions that follow each other.

use muster_registry::config::{Federation, Peer};

use super::*;

/// Registries of these regions, of which each follows those that are named.
async fn regions<const N: usize>(follows: [(&str, &[&str]); N], grace_seconds: u64) -> [Server; N] {
    let listeners = follows.map(|_| Listeners::ephemeral().expect("free ports"));
    let url = |wanted: &str| {
        let place = follows.iter().position(|(region, _)| *region == wanted);
        format!("http://{}", listeners[place.expect("one of them")].data_address())
    };
    let settings = follows.map(|(region, peers)| Settings {
        probe_endpoints: false,
        federation: Federation {
            region: region.to_owned(),
            peers: peers
                .iter()
                .map(|peer| Peer {
                    region: (*peer).to_owned(),
                    url: url(peer),
                })
                .collect(),
            grace_seconds,
            ..Federation::default()
        },
        ..Settings::default()
    });
    let mut servers = Vec::new();
    for (listeners, settings) in listeners.into_iter().zip(settings) {
        servers.push(Server::start_on(listeners, settings).await);
    }
    servers
        .try_into()
        .unwrap_or_else(|_| unreachable!("as many as there were"))
}

/// What is listed: agent, region and where it is from.
async fn listed(server: &mut Server) -> Vec<(String, String, Option<String>)> {
    let request = proto::ListAgentsRequest::default();
    let page = server.client.list_agents(request).await.unwrap().into_inner();
    let instances = page.agents.into_iter().flat_map(|agent| agent.instances);
    let mut listed: Vec<_> = instances
        .map(|it| (it.agent_id, it.region, it.origin.map(|origin| origin.region)))
        .collect();
    listed.sort();
    listed
}

async fn lists(server: &mut Server, expected: &[(&str, &str, Option<&str>)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(agent, region, origin)| {
            (
                (*agent).to_owned(),
                (*region).to_owned(),
                origin.map(str::to_owned),
            )
        })
        .collect();
    wait_for(&format!("{expected:?}"), SOON, async || {
        let listed = listed(server).await;
        if listed == expected {
            Ok(())
        } else {
            Err(format!("{listed:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_full_mesh_shows_every_agent_once_and_knows_where_it_is_from() {
    let [mut eu, mut us, mut ap] = regions(
        [
            ("eu", &["us", "ap"]),
            ("us", &["eu", "ap"]),
            ("ap", &["eu", "us"]),
        ],
        300,
    )
    .await;
    let lease = eu.granted(instance("weather", &["forecast"])).await;
    us.granted(instance("weather", &["forecast"])).await;
    us.granted(instance("planning", &["plan"])).await;
    ap.granted(proto::Instance {
        region: "ap-south".to_owned(),
        ..instance("news", &["read"])
    })
    .await;
    let at = |home: &'static str, region: &'static str, server: &str| {
        (region, Some(home).filter(|home| *home != server))
    };
    for (name, server) in [("eu", &mut eu), ("us", &mut us), ("ap", &mut ap)] {
        let mut expected: Vec<(&str, &str, Option<&str>)> = [
            ("news", at("ap", "ap-south", name)),
            ("planning", at("us", "us", name)),
            ("weather", at("eu", "eu", name)),
            ("weather", at("us", "us", name)),
        ]
        .map(|(agent, (region, origin))| (agent, region, origin))
        .to_vec();
        expected.sort_unstable();
        lists(server, &expected).await;
    }

    // One agent with instances here and there; the best are found wherever they are.
    let found = ap.discover(&["forecast"]).await.instances;
    assert_eq!(found.len(), 2);
    eu.beat(&lease, 0.5).await.unwrap();
    wait_for("the load to be known elsewhere", SOON, async || {
        let found = ap.discover(&["forecast"]).await.instances;
        let regions: Vec<_> = found.iter().map(|it| (it.region.as_str(), it.load)).collect();
        if regions == [("us", 0.0), ("eu", 0.5)] {
            Ok(())
        } else {
            Err(format!("{regions:?}"))
        }
    })
    .await;
    let request = proto::ListAgentsRequest {
        region: "eu".to_owned(),
        ..Default::default()
    };
    let of_region = ap.client.list_agents(request).await.unwrap().into_inner().agents;
    assert_eq!(of_region.len(), 1);
    assert_eq!(of_region[0].instances.len(), 1);

    // Own ones and others are counted apart.
    let counted = us.client.get_statistics(proto::GetStatisticsRequest::default());
    let counted = counted.await.unwrap().into_inner();
    assert_eq!(
        (
            counted.total.unwrap().instances,
            counted.foreign.unwrap().instances
        ),
        (2, 2)
    );
    let peers: Vec<_> = counted
        .peers
        .iter()
        .map(|it| (it.region.as_str(), it.connected))
        .collect();
    assert_eq!(peers, [("eu", true), ("ap", true)]);
    us.metric("muster_registry_federation_peers_connected 2").await;
    us.metric("muster_registry_federation_instances{region=\"eu\"} 1")
        .await;

    // Only the home changes an agent.
    let drain = |agent: &str| proto::DrainRequest {
        agent_id: agent.to_owned(),
        ..Default::default()
    };
    let refused = told(&ap.client.drain(drain("planning")).await.unwrap_err());
    assert_eq!(refused.reason, Reason::AgentElsewhere);
    assert_eq!(refused.metadata["region"], "us");
    assert_eq!(refused.metadata["registry_url"], format!("http://{}", us.data));
    let unknown = told(&ap.client.drain(drain("plannin")).await.unwrap_err());
    assert_eq!(
        (unknown.reason, unknown.metadata["nearest"].as_str()),
        (Reason::AgentNotFound, "planning")
    );
    let drained = eu.client.drain(drain("weather")).await.unwrap().into_inner();
    assert_eq!(drained.instances, 1, "its own one");
    let missing = ap.discover(&["forecasts"]).await;
    assert_eq!(missing.nearest_skills, ["forecast"]);
    assert!(ap.discover(&["forecast"]).await.nearest_skills.is_empty());
}

#[tokio::test]
async fn in_a_ring_everybody_sees_who_it_follows_and_nothing_goes_round() {
    let [mut eu, mut us, mut ap] = regions([("eu", &["us"]), ("us", &["ap"]), ("ap", &["eu"])], 300).await;
    for server in [&mut eu, &mut us, &mut ap] {
        server.granted(instance("weather", &["s"])).await;
    }
    let mut watch = eu
        .client
        .watch_agents(proto::WatchAgentsRequest {
            incremental: true,
            own_only: true,
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    for (server, own, other) in [
        (&mut eu, "eu", "us"),
        (&mut us, "us", "ap"),
        (&mut ap, "ap", "eu"),
    ] {
        let mut expected = [("weather", own, None), ("weather", other, Some(other))];
        expected.sort_unstable();
        lists(server, &expected).await;
    }
    // What has gone round would come back to where it is from.
    let last = eu.granted(instance("last", &["s"])).await;
    lists(
        &mut ap,
        &[
            ("last", "eu", Some("eu")),
            ("weather", "ap", None),
            ("weather", "eu", Some("eu")),
        ],
    )
    .await;
    let Some(Change::Snapshot(own)) = watch.message().await.unwrap().unwrap().change else {
        panic!("a stream begins with a snapshot");
    };
    assert_eq!(own.instances.len(), 1);
    let Some(Change::Upserted(next)) = watch.message().await.unwrap().unwrap().change else {
        panic!("the next that is registered here");
    };
    assert_eq!((next.agent_id.as_str(), next.origin), ("last", None));
    eu.client
        .deregister(proto::DeregisterRequest {
            lease_id: last.lease_id,
        })
        .await
        .unwrap();
    lists(&mut ap, &[("weather", "ap", None), ("weather", "eu", Some("eu"))]).await;
}

#[tokio::test]
async fn a_watcher_hears_of_other_regions_and_goes_on_where_it_was() {
    let [mut eu, mut us] = regions([("eu", &["us"]), ("us", &[])], 300).await;
    let watch = proto::WatchAgentsRequest {
        incremental: true,
        ..Default::default()
    };
    let mut stream = eu.client.watch_agents(watch.clone()).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    let lease = us.granted(instance("weather", &["s"])).await;
    let came = stream.message().await.unwrap().unwrap();
    assert_eq!(came.revision, first.revision + 1);
    let Some(Change::Upserted(came)) = came.change else {
        panic!("an instance that came");
    };
    assert_eq!(came.origin.unwrap().region, "us");
    drop(stream);

    us.beat(&lease, 0.25).await.unwrap();
    wait_for("the report", SOON, async || {
        let found = eu.discover(&["s"]).await.instances;
        if found.iter().any(|it| it.load > 0.0) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    let again = proto::WatchAgentsRequest {
        since_revision: first.revision + 1,
        incarnation: first.incarnation,
        ..watch
    };
    let mut stream = eu.client.watch_agents(again).await.unwrap().into_inner();
    let resumed = stream.message().await.unwrap().unwrap().change;
    assert!(matches!(resumed, Some(Change::Resumed(_))), "{resumed:?}");
    let reported = stream.message().await.unwrap().unwrap().change;
    assert!(matches!(reported, Some(Change::Reported(_))), "{reported:?}");
}

#[tokio::test]
async fn a_registry_that_is_away_keeps_its_agents_here_for_the_grace_and_brings_them_back() {
    let [mut eu, mut us] = regions([("eu", &["us"]), ("us", &[])], 2).await;
    us.granted(instance("weather", &["s"])).await;
    let here = [("weather", "us", Some("us"))];
    lists(&mut eu, &here).await;
    let mut stream = eu.watch().await;
    stream.message().await.unwrap().unwrap();

    let place = us.data;
    us.shutdown.trigger();
    assert!(matches!(us.run.join_next().await, Some(Ok(Ok(())))));
    wait_for("it to be stale", SOON, async || {
        let found = eu.discover(&["s"]).await.instances;
        let stale = found
            .iter()
            .filter_map(|it| it.origin.as_ref()?.stale_since)
            .count();
        // On a slow machine the grace may have passed.
        if stale == 1 || found.is_empty() {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    let gone = stream.message().await.unwrap().unwrap().change;
    assert!(
        matches!(&gone, Some(Change::Removed(removal)) if removal.reason() == proto::RemovalReason::Unheard),
        "{gone:?}"
    );
    lists(&mut eu, &[]).await;
    let peers = eu.client.get_statistics(proto::GetStatisticsRequest::default());
    let peer = peers.await.unwrap().into_inner().peers.remove(0);
    assert!(
        !peer.connected && peer.stale_since.is_some() && !peer.problem.is_empty(),
        "{peer:?}"
    );

    let config = muster_runtime::server::Config::on_ports(place.port(), 0, 0);
    let listeners = Listeners::bind(&config).expect("the port is free again");
    let mut us = Server::start_on(
        listeners,
        Settings {
            probe_endpoints: false,
            ..Settings::default()
        },
    )
    .await;
    us.granted(instance("weather", &["s"])).await;
    lists(&mut eu, &here).await;
}
