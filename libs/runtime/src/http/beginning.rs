//! A connection whose beginning is bounded in time: a client that opens it and says nothing, or says what it speaks byte by byte,
//! is let go.
//!
//! hyper's own timers start later, for HTTP/1 when its first byte has shown that it is HTTP/1, for HTTP/2 (pings) when the
//! preface is through. Until then a connection would hold its place for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What a client of HTTP/2 sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// See the module.
pub(super) struct Beginning<S> {
    stream: S,
    /// Until when it must be known what is spoken, and how much of the preface has come; nothing once it is known.
    open: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Beginning<S> {
    /// A connection that fails when it does not begin within `limit`.
    pub(super) fn within(limit: Duration, stream: S) -> Self {
        Self {
            stream,
            open: Some((Box::pin(tokio::time::sleep(limit)), 0)),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Beginning<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        let Some((end, seen)) = &mut this.open else {
            return polled;
        };
        if polled.is_pending() {
            return end.as_mut().poll(context).map(|()| {
                let why = "the client did not say in time what it speaks";
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            });
        }
        let came = buffer.filled().get(before..).unwrap_or_default();
        let expected = PREFACE.get(*seen..).unwrap_or_default();
        *seen += came.len();
        if *seen >= PREFACE.len() || !expected.starts_with(came) {
            this.open = None;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Beginning<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// What a reader hears who asks for ever, of a client that sends these, one each five seconds, and then stays.
    async fn heard(pieces: &[&[u8]]) -> io::Result<u8> {
        let (mut client, server) = duplex(64);
        let mut server = Beginning::within(LIMIT, server);
        let sending = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            tokio::time::sleep(Duration::from_secs(3600)).await;
        };
        let reading = async {
            loop {
                server.read_u8().await?;
            }
        };
        tokio::select! {
            () = sending => Ok(0),
            outcome = reading => outcome,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_a_slow_preface_end_it_and_what_has_begun_goes_on() {
        let slow: [&[&[u8]]; 3] = [&[], &[b"P"], &[b"P", b"R", b"I", b" ", b"*", b" ", b"H", b"T"]];
        for pieces in slow {
            let ended = heard(pieces).await.unwrap_err();
            assert_eq!(ended.kind(), io::ErrorKind::TimedOut, "{pieces:?}");
        }
        let begun: [&[&[u8]]; 3] = [&[b"G"], &[b"POST"], &[b"PRI * HTTP/2.0", b"\r\n\r\nSM\r\n\r\n"]];
        for pieces in begun {
            heard(pieces).await.unwrap();
        }
    }
}
