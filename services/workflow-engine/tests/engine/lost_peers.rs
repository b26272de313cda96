//! Calls that are sent on to another engine, which dies with them on their way: whoever has called is told to come again, and may.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use muster_api::workflow::RunStatus;
use muster_testkit::{RedisServer, wait_for};
use tokio::io::{AsyncReadExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Code;

use crate::harness::{Engine, PATIENCE, document};

/// Calls at once: some are on their way when the connection ends, others are in line for it.
const CALLS: usize = 32;

/// What is between an engine and the others, which reach it by this address only.
struct Way {
    address: SocketAddr,
    /// To the engine; `None`: connections end as soon as a call has come over them, and so do those that are open.
    leads_to: watch::Sender<Option<SocketAddr>>,
    /// Calls that were lost on it.
    lost: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Way {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (leads_to, known) = watch::channel(None);
        let lost = Arc::new(AtomicUsize::new(0));
        let mut serving = JoinSet::new();
        let counter = Arc::clone(&lost);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(connection(stream, known.clone(), Arc::clone(&counter)));
            }
        });
        Self {
            address,
            leads_to,
            lost,
            _serving: serving,
        }
    }
}

async fn connection(
    mut near: TcpStream,
    mut way: watch::Receiver<Option<SocketAddr>>,
    lost: Arc<AtomicUsize>,
) {
    let engine = *way.borrow_and_update();
    match engine {
        Some(engine) => {
            let mut far = TcpStream::connect(engine).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = way.changed() => {}
            }
        }
        None => {
            let mut read = Vec::new();
            while !has_call(&read) {
                match near.read_buf(&mut read).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether a frame of HEADERS is behind the preface of HTTP/2.
fn has_call(read: &[u8]) -> bool {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;
    let mut rest = read.get(PREFACE..).unwrap_or_default();
    while let [a, b, c, kind, ..] = *rest {
        if kind == HEADERS {
            return true;
        }
        let length = 9 + (usize::from(a) << 16) + (usize::from(b) << 8) + usize::from(c);
        rest = rest.get(length..).unwrap_or_default();
    }
    false
}

#[tokio::test]
async fn whoever_calls_while_another_engine_dies_is_told_to_come_again() {
    let (redis, way) = (RedisServer::start().await, Way::start().await);
    let owner = Engine::start_with(|settings| {
        settings.redis_cluster_endpoint = Some(redis.url());
        settings.redis.advertised_address = Some(way.address.to_string());
    })
    .await;
    let asked = Engine::start_with(|settings| settings.redis_cluster_endpoint = Some(redis.url())).await;
    let text = document("  - done: {set: {by: anybody}}\n");
    let ids: Vec<String> = (0..CALLS).map(|number| format!("run-{number}")).collect();
    let answers = join_all(ids.iter().map(|id| asked.start_run(&text, id, ""))).await;
    assert!(way.lost.load(Ordering::Relaxed) > 0, "{answers:?}");
    assert!(answers.iter().any(Result::is_err), "{answers:?}");
    for status in answers.into_iter().filter_map(Result::err) {
        let error = muster_api::error::Error::from_status(&status);
        let error = error.unwrap_or_else(|| panic!("not ours: {status:?}"));
        assert_eq!(
            (status.code(), error.reason.name()),
            (Code::Unavailable, "OWNER_UNAVAILABLE"),
            "{status:?}"
        );
        assert!(error.retry_after.is_some(), "{error:?}");
    }
    way.leads_to.send_replace(Some(owner.address()));
    for id in &ids {
        wait_for(&format!("{id} to be started"), PATIENCE, async || {
            let started = asked.start_run(&text, id, "").await;
            started.map(|run| assert_eq!(run.run_id, *id))
        })
        .await;
    }
    for id in &ids {
        let here = asked.until(id, RunStatus::Completed).await;
        let there = owner.run(id).await;
        assert_eq!(here.output_json, there.output_json);
    }
}
