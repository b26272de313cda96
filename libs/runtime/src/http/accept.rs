//! Accepts connections and serves them until a shutdown is asked for; then lets them finish, for a time.
//!
//! Why not `axum::serve`: it bounds neither headers nor streams nor connections, and its graceful shutdown has no
//! end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use muster_rpc::gather::{Gathered, Gathering};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};

use super::Answers;
use super::arrival::Arrivals;
use super::beginning::Beginning;
use super::idle::{self, Activity};
use crate::trust::audit::{TurnedAway, Why};
use crate::trust::token::Familiar;
use crate::trust::{Handshakes, Peer};
use crate::workers::Workers;
use crate::{Shutdown, server};

/// How often an idle HTTP/2 peer is asked whether it is there, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Streams that a client may have reset before they were looked at, and streams that the server may have had to reset because of a
/// client's mistakes, until the connection is closed (ENHANCE_YOUR_CALM): who resets what it has just asked for makes work for
/// nothing. The first is what the library has by itself; said here, it is ours.
const RESETS: (usize, usize) = (20, 128);
/// How long to wait when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is requested, then until all connections ended or `drain` resolves. Returns how many
/// connections were cut. Each begins with a handshake, where there are to be any.
pub(crate) async fn serve(
    listener: TcpListener,
    answers: impl Into<Answers>,
    config: &server::Config,
    handshakes: Option<Handshakes>,
    turned_away: Option<&Arc<TurnedAway>>,
    shutdown: &Shutdown,
    drain: impl Future<Output = ()>,
) -> usize {
    let answers = answers.into();
    let builder = Arc::new(protocol(config));
    let (head_timeout, idle_timeout) = (config.head_timeout(), config.idle_timeout());
    let places = Arc::new(Semaphore::new(config.max_connections));
    let arrivals = handshakes.map(|handshakes| Arc::new(Arrivals::new(handshakes, turned_away.cloned())));
    // Where hands are shaken first, a connection gets its place afterwards.
    let room = arrivals
        .as_ref()
        .map_or_else(|| Arc::clone(&places), |arrivals| Arc::clone(&arrivals.room));
    // Those who shake hands make room for each other; they wait afterwards.
    let waiting = turned_away.filter(|_| arrivals.is_none());
    let workers = start_workers(config.workers);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room, waiting) => accepted,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                tell_panic(ended);
                continue;
            }
            () = shutdown.requested() => break,
        };
        let Some((stream, address, place)) = accepted else {
            continue;
        };
        let connection = Connection {
            builder: Arc::clone(&builder),
            answers: answers.clone(),
            head_timeout,
            idle_timeout,
            stop: shutdown.clone(),
            turned_away: turned_away.cloned(),
        };
        let seat = workers.as_ref().and_then(Workers::seat);
        let runtime = seat
            .as_ref()
            .map_or_else(Handle::current, |seat| seat.runtime.clone());
        let (arrivals, places, shutdown) = (arrivals.clone(), Arc::clone(&places), shutdown.clone());
        let serving = async move {
            let Some(stream) = moved_here(stream, seat.is_some()) else {
                return;
            };
            let Some(arrivals) = arrivals else {
                connection.serve(stream, Peer::Anonymous { address }).await;
                drop((place, seat));
                return;
            };
            let Some((stream, peer)) = arrivals.shake_hands(stream, address, &shutdown).await else {
                return;
            };
            let arriving = place;
            tell_no_place(&places, connection.turned_away.as_ref());
            let place = tokio::select! {
                place = places.acquire_owned() => place,
                () = shutdown.requested() => return,
            };
            drop(arriving);
            connection.serve(stream, peer).await;
            drop((place, seat));
        };
        connections.spawn_on(serving, &runtime);
    }
    drop(listener);
    // Each has heard of the shutdown, and ends by itself.
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            tell_panic(ended);
        }
    };
    tokio::select! {
        () = all_ended => {}
        () = drain => {}
    }
    while connections.try_join_next().is_some() {} // those that ended are not cut
    let cut = connections.len();
    connections.shutdown().await;
    cut
}

/// The threads for the connections, where there are to be any. Without them the process's own serve.
fn start_workers(count: usize) -> Option<Workers> {
    if count == 0 {
        return None;
    }
    Workers::start("connections", count)
        .inspect_err(|error| tracing::warn!(%error, "no threads for connections alone; see `server.workers`"))
        .ok()
}

/// The stream, told of by the present runtime if it `has_moved` from the one that accepted it.
fn moved_here(stream: TcpStream, has_moved: bool) -> Option<TcpStream> {
    if !has_moved {
        return Some(stream);
    }
    stream
        .into_std()
        .and_then(TcpStream::from_std)
        .inspect_err(|error| tracing::warn!(%error, "a connection was not taken over by its thread"))
        .ok()
}

/// What serves one connection.
struct Connection {
    builder: Arc<Builder<TokioExecutor>>,
    answers: Answers,
    head_timeout: Duration,
    idle_timeout: Duration,
    /// When it is to finish.
    stop: Shutdown,
    turned_away: Option<Arc<TurnedAway>>,
}

impl Connection {
    /// Serves it to its end. Each request says who holds the other end.
    async fn serve<S>(self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answers = self.answers;
        let familiar = Arc::new(Familiar::default());
        let address = peer.address().ip();
        let activity = Arc::new(Activity::default());
        let requests = Arc::clone(&activity);
        let service = TowerToHyperService::new(tower::service_fn(
            move |mut request: hyper::Request<Incoming>| {
                let under_way = requests.begin();
                request.extensions_mut().insert(peer.clone());
                request.extensions_mut().insert(Arc::clone(&familiar));
                let answer = answers.answer(request.map(axum::body::Body::new));
                async move { Ok::<_, Infallible>(answer.await.map(|body| idle::Answer::new(body, under_way))) }
            },
        ));
        let stream = Beginning::within(self.head_timeout, Gathered::new(stream));
        let connection = self
            .builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service);
        let served = idle::serve(
            connection.into_owned(),
            &activity,
            self.idle_timeout,
            self.stop.requested(),
        );
        // Clients break off all the time; who cares is told by its own request.
        if let Err(error) = Gathering::new(served).await {
            tracing::debug!(%error, "a connection ended with an error");
            if let Some(turned_away) = &self.turned_away
                && let Some(why) = Why::of_connection(&*error)
                // Who has been served and asks for nothing more is let go, and not turned away.
                && (why != Why::SlowBeginning || !activity.has_begun())
            {
                turned_away.note(Some(address), why, "");
            }
        }
    }
}

/// Requests and bodies keep their panics to themselves; one that gets here is a defect of the server's own.
fn tell_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection panicked");
    }
}

fn tell_no_place(places: &Semaphore, turned_away: Option<&Arc<TurnedAway>>) {
    if places.available_permits() == 0
        && let Some(turned_away) = turned_away
    {
        turned_away.note(None, Why::NoPlace, "whoever comes waits until one ends");
    }
}

/// The next connection, where it comes from, and its place among the others.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    turned_away: Option<&Arc<TurnedAway>>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    tell_no_place(places, turned_away);
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => {
            // Without it, small answers wait for the peer's acknowledgement.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY was refused");
            }
            Some((stream, address, place))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection was not accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

fn protocol(config: &server::Config) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let header_bytes = usize::try_from(config.max_header_bytes).unwrap_or(usize::MAX);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_timeout())
        .max_buf_size(header_bytes.max(8 << 10));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_concurrent_streams)
        .max_header_list_size(config.max_header_bytes)
        .max_pending_accept_reset_streams(RESETS.0)
        .max_local_error_reset_streams(RESETS.1)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1);
    builder
}
