use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use h2::Reason;
use h2::server::{self, SendResponse};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;

/// A call that a peer has taken.
type Taken = (Request<RecvStream>, SendResponse<Bytes>);

/// A peer that speaks HTTP/2, and hands out the calls that it takes.
struct Peer {
    uri: Uri,
    connections: Arc<AtomicUsize>,
    calls: mpsc::UnboundedReceiver<Taken>,
    /// Dropping it cuts all connections.
    _serving: JoinSet<()>,
}

/// A peer that says goodbye to each connection once it has taken so many calls on it.
async fn peer(goodbye_after: usize) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let (taken, calls) = mpsc::unbounded_channel();
    let mut serving = JoinSet::new();
    let counted = Arc::clone(&connections);
    serving.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let taken = taken.clone();
            open.spawn(async move {
                let mut connection = server::handshake(stream).await.unwrap();
                let mut count = 0;
                while let Some(Ok(call)) = connection.accept().await {
                    count += 1;
                    if count == goodbye_after {
                        connection.graceful_shutdown();
                    }
                    // Whoever does not look at them wants them dropped.
                    let _unwanted = taken.send(call);
                }
            });
        }
    });
    Peer {
        uri: uri.parse().unwrap(),
        connections,
        calls,
        _serving: serving,
    }
}

fn way() -> Direct<HttpConnector> {
    let watch = Watch {
        interval: Duration::from_secs(60),
        timeout: Duration::from_secs(1),
        while_idle: false,
    };
    Direct::new(HttpConnector::new(), watch)
}

fn post(uri: &Uri, body: &'static str) -> Request<tonic::body::Body> {
    let body = http_body_util::Full::new(Bytes::from(body));
    Request::post(uri.clone())
        .body(tonic::body::Body::new(body))
        .unwrap()
}

async fn whole(mut body: RecvStream) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        whole.extend(piece.unwrap());
    }
    whole
}

/// Answers with what was asked, and a trailer.
async fn echo((request, mut answer): Taken) {
    let asked = whole(request.into_body()).await;
    let mut stream = answer.send_response(Response::new(()), false).unwrap();
    stream.send_data(asked.into(), false).unwrap();
    let trailers = [(http::HeaderName::from_static("grpc-status"), "0".parse().unwrap())];
    stream.send_trailers(trailers.into_iter().collect()).unwrap();
}

#[tokio::test]
async fn many_calls_at_once_share_a_connection_and_each_gets_its_answer_and_trailers() {
    let mut peer = peer(usize::MAX).await;
    let way = way();
    let calls = join_all((0..50).map(|_| way.clone().oneshot(post(&peer.uri, "hello"))));
    let answering = async {
        for _ in 0..50 {
            echo(peer.calls.recv().await.unwrap()).await;
        }
    };
    let (answers, ()) = tokio::join!(calls, answering);
    for answer in answers {
        let body = answer.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(body.to_bytes(), "hello");
    }
    assert_eq!(peer.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_call_of_one_piece_gets_its_answer_and_is_reset_when_it_is_given_up() {
    let mut peer = peer(usize::MAX).await;
    let way = way();
    let piece = || Request::post(peer.uri.clone()).body(Bytes::from("x")).unwrap();
    let (first, second) = (piece(), piece());
    let (answer, ()) = tokio::join!(way.send(first), async {
        echo(peer.calls.recv().await.unwrap()).await;
    });
    assert_eq!(
        answer.unwrap().into_body().collect().await.unwrap().to_bytes(),
        "x"
    );
    let mut call = Box::pin(way.send(second));
    let (_request, mut answer) = tokio::select! {
        _ = &mut call => panic!("nobody answers"),
        taken = peer.calls.recv() => taken.unwrap(),
    };
    drop(call);
    let reset = poll_fn(|context| answer.poll_reset(context)).await;
    assert_eq!(reset.unwrap(), Reason::CANCEL);
}

#[tokio::test]
async fn a_call_after_a_goodbye_goes_to_a_new_connection() {
    let mut peer = peer(1).await;
    let way = way();
    for round in 1..=3 {
        let (answer, ()) = tokio::join!(way.clone().oneshot(post(&peer.uri, "x")), async {
            echo(peer.calls.recv().await.unwrap()).await;
        });
        let body = answer.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "x");
        assert_eq!(peer.connections.load(Ordering::SeqCst), round);
    }
}

#[tokio::test]
async fn what_the_peer_says_it_has_not_begun_was_never_reached_and_what_broke_off_may_have_been() {
    let mut peer = peer(usize::MAX).await;
    let way = way();
    let mut failed = async |reason| {
        let (answer, ()) = tokio::join!(way.clone().oneshot(post(&peer.uri, "x")), async {
            let (_request, mut answer) = peer.calls.recv().await.unwrap();
            answer.send_reset(reason);
        });
        answer.unwrap_err()
    };
    assert!(failed(Reason::REFUSED_STREAM).await.never_reached());
    assert!(!failed(Reason::INTERNAL_ERROR).await.never_reached());
    let nobody = nobody().await;
    let other = self::way();
    let refused = join_all((0..10).map(|_| other.clone().oneshot(post(&nobody, "x")))).await;
    assert!(
        refused
            .into_iter()
            .all(|refused| refused.unwrap_err().never_reached())
    );
}

/// An address at which nobody listens any more.
async fn nobody() -> Uri {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    uri.parse().unwrap()
}

#[tokio::test]
async fn a_call_that_is_given_up_is_reset() {
    let mut peer = peer(usize::MAX).await;
    let mut call = Box::pin(way().oneshot(post(&peer.uri, "x")));
    let (_request, mut answer) = tokio::select! {
        _ = &mut call => panic!("nobody answers"),
        taken = peer.calls.recv() => taken.unwrap(),
    };
    drop(call);
    let reset = poll_fn(|context| answer.poll_reset(context)).await;
    assert_eq!(reset.unwrap(), Reason::CANCEL);
}
