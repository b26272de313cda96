//! What became of a call whose connection was lost: can the peer have begun with it?
//!
//! A status that a peer has answered has no source. One that this side made of a connection that failed carries what failed, and only
//! what is certain from that counts as [`Loss::Unsent`]: there was no connection; the call was still in this process when the
//! connection ended, because the peer had said goodbye; or the peer says in the words of HTTP/2 that it has not begun. Everything
//! else may have been done, with nobody left to tell.
//!
//! The ways of [`direct`](crate::direct) judge by the same words of HTTP/2.

use std::error::Error as StdError;

use h2::Reason;
use tonic::Status;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The peer has not begun with it.
    Unsent,
    /// The peer may be at it, or may have done it.
    UnderWay,
}

impl Loss {
    /// What a status says that a channel has made; `None`: the peer has answered, the time was up, or the request was none.
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        let mut loss = None;
        let mut source = StdError::source(status);
        while let Some(error) = source {
            if error.is::<tonic::TimeoutExpired>() {
                return None;
            }
            if error.is::<tonic::ConnectError>() {
                return Some(Self::Unsent);
            }
            if let Some(error) = error.downcast_ref::<hyper::Error>() {
                // A body that fails, or a head that cannot be sent, is the caller's own.
                if error.is_user() {
                    return None;
                }
                if error.is_canceled() || error.is_closed() {
                    return Some(Self::Unsent);
                }
                loss = Some(Self::UnderWay);
            }
            if let Some(error) = error.downcast_ref::<h2::Error>() {
                return Some(if is_not_begun(error) {
                    Self::Unsent
                } else {
                    Self::UnderWay
                });
            }
            source = error.source();
        }
        loss
    }
}

/// Whether the peer says that it has not begun: a goodbye that names an earlier call as its last, or REFUSED_STREAM.
pub(crate) fn is_not_begun(error: &h2::Error) -> bool {
    error.is_remote()
        && (error.is_go_away() || (error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use h2::server;
    use http::{Request, Uri};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinSet;
    use tonic::transport::{Channel, Endpoint};
    use tower::ServiceExt as _;

    use super::*;

    /// What the peer does with the one call that it gets.
    enum Peer {
        Resets(Reason),
        /// A goodbye that names no call, before anything was answered.
        SaysGoodbye,
        Hangs,
        Dies,
    }

    /// A server that does so; where it is.
    async fn start(peer: Peer, serving: &mut JoinSet<()>) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/", listener.local_addr().unwrap());
        serving.spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            if matches!(peer, Peer::SaysGoodbye) {
                say_goodbye(stream).await;
                return;
            }
            let mut connection = server::handshake(stream).await.unwrap();
            let (_request, mut answer) = connection.accept().await.unwrap().unwrap();
            match peer {
                Peer::Resets(reason) => answer.send_reset(reason),
                Peer::Hangs => std::future::pending().await,
                Peer::Dies | Peer::SaysGoodbye => return,
            }
            while connection.accept().await.is_some() {}
        });
        uri.parse().unwrap()
    }

    /// SETTINGS; once a call can have come, GOAWAY with no call as the last.
    async fn say_goodbye(mut stream: TcpStream) {
        const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        stream.write_all(&SETTINGS).await.unwrap();
        let mut read = Vec::new();
        // The preface, and of the frames behind it the one of HEADERS.
        while !has_headers(&read) {
            let mut piece = [0; 1024];
            let count = stream.read(&mut piece).await.unwrap();
            read.extend_from_slice(&piece[..count]);
        }
        stream.write_all(&GOAWAY).await.unwrap();
        let mut rest = Vec::new();
        let _closed = stream.read_to_end(&mut rest).await;
    }

    fn has_headers(read: &[u8]) -> bool {
        const PREFACE: usize = 24;
        let mut rest = read.get(PREFACE..).unwrap_or_default();
        while let [a, b, c, kind, ..] = *rest {
            if kind == 1 {
                return true;
            }
            let length = 9 + usize::from(c) + (usize::from(b) << 8) + (usize::from(a) << 16);
            rest = rest.get(length..).unwrap_or_default();
        }
        false
    }

    async fn call(channel: Channel, uri: Uri) -> Status {
        let request = Request::post(uri).body(tonic::body::Body::empty()).unwrap();
        match channel.oneshot(request).await {
            Ok(answer) => panic!("nobody answers: {answer:?}"),
            Err(error) => Status::from_error(Box::new(error)),
        }
    }

    #[tokio::test]
    async fn only_what_the_peer_cannot_have_begun_is_unsent() {
        let mut serving = JoinSet::new();
        for (peer, expected) in [
            (Peer::Resets(Reason::REFUSED_STREAM), Loss::Unsent),
            (Peer::SaysGoodbye, Loss::Unsent),
            (Peer::Resets(Reason::INTERNAL_ERROR), Loss::UnderWay),
            (Peer::Dies, Loss::UnderWay),
        ] {
            let uri = start(peer, &mut serving).await;
            let channel = Endpoint::from(uri.clone()).connect_lazy();
            let status = call(channel, uri).await;
            assert_eq!(Loss::of(&status), Some(expected), "{status:?}");
        }
        let nobody: Uri = "http://127.0.0.1:1/".parse().unwrap();
        let status = call(Endpoint::from(nobody.clone()).connect_lazy(), nobody).await;
        assert_eq!(Loss::of(&status), Some(Loss::Unsent), "{status:?}");
    }

    #[tokio::test]
    async fn what_was_in_line_when_its_connection_ended_is_unsent() {
        let (near, far) = tokio::io::duplex(1024);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near));
        let (mut sender, connection) = handshake.await.unwrap();
        let request = Request::post("http://peer/")
            .body(http_body_util::Empty::<Bytes>::new())
            .unwrap();
        let in_line = sender.send_request(request);
        drop((connection, far));
        let status = Status::from_error(Box::new(in_line.await.unwrap_err()));
        assert_eq!(status.message(), "operation was canceled");
        assert_eq!(Loss::of(&status), Some(Loss::Unsent));
    }

    #[tokio::test]
    async fn answers_and_deadlines_are_no_losses() {
        assert_eq!(Loss::of(&Status::unavailable("says the peer")), None);
        let mut serving = JoinSet::new();
        let uri = start(Peer::Hangs, &mut serving).await;
        let channel = Endpoint::from(uri.clone())
            .timeout(Duration::from_millis(50))
            .connect_lazy();
        let status = call(channel, uri).await;
        assert_eq!(Loss::of(&status), None, "{status:?}");
    }
}
