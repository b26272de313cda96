//! Connections that write once for all that one turn of their task has to say.
//!
//! HTTP/2 as hyper and h2 speak it writes each message of more than 256 bytes by a call of the system of its own, headers and trailers
//! around it by others. On a connection that many calls share that is most of what a hop costs: the kernel delivers each piece
//! for itself, and wakes who reads it. [`Gathered`] keeps what is written while its task has its turn, and [`Gathering`], which
//! wraps the task, writes all of it when the turn ends. Nothing waits for more to come: a turn ends when its task has nothing left
//! to do, so that a single call is as early as before.
//!
//! Invariants:
//! - Outside of such a task nothing is kept: what is written goes out at once. So a connection may be used anywhere.
//! - What is kept is bounded ([`MOST_BYTES`]): beyond that the socket has to take it first, and its slowness reaches who writes.
//! - An error that shows when the turn has ended is the outcome of the next write or flush, and the task is woken for it.
//! - Bytes keep their order. A shutdown writes what is kept before it ends the stream.
//!
//! Rejected: a timer, which makes a single call wait; `TCP_CORK`, two more calls of the system each time; a larger threshold in h2,
//! which has no setting for it.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much a connection keeps before the socket has to take it.
pub const MOST_BYTES: usize = 64 << 10;

/// From here on it is cheaper to hand pieces to the system as they are than to copy them.
const LARGE_BYTES: usize = 16 << 10;

/// Room that an idle connection holds on to.
const IDLE_BYTES: usize = 4 << 10;

thread_local! {
    /// The connections that have written in the present turn; nothing outside of a [`Gathering`].
    static TURN: RefCell<Option<Vec<Arc<dyn Keeper>>>> = const { RefCell::new(None) };
}

/// A connection that has kept something.
trait Keeper: Send + Sync {
    /// Writes it. Pending where the socket takes no more for now.
    fn write(&self, context: &mut Context<'_>) -> Poll<()>;
}

/// A connection that gathers; see the module.
#[derive(Debug)]
pub struct Gathered<S>(Arc<Mutex<State<S>>>);

#[derive(Debug)]
struct State<S> {
    stream: S,
    kept: Vec<u8>,
    /// How much of it was written.
    written: usize,
    /// Whether it is among those of the present turn.
    is_listed: bool,
    failed: Option<io::Error>,
}

impl<S> Gathered<S> {
    /// This stream, gathering.
    pub fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(State {
            stream,
            kept: Vec::new(),
            written: 0,
            is_listed: false,
            failed: None,
        })))
    }
}

impl<S: AsyncWrite + Unpin> State<S> {
    /// Hands all that is kept to the stream.
    fn drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.kept.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.written = 0;
        self.kept.clear();
        if self.kept.capacity() > IDLE_BYTES {
            self.kept = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    fn flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }
}

impl<S: AsyncWrite + Send + Unpin + 'static> Gathered<S> {
    /// Puts it among those of the present turn. Says whether there is one.
    fn list(&self, state: &mut State<S>) -> bool {
        TURN.with_borrow_mut(|turn| {
            let Some(turn) = turn else { return false };
            if !state.is_listed {
                state.is_listed = true;
                turn.push(Arc::new(Listed(Arc::clone(&self.0))));
            }
            true
        })
    }

    fn write(&self, context: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        if let Some(error) = state.failed.take() {
            return Poll::Ready(Err(error));
        }
        let total = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let gathers = self.list(state);
        let has_room = state.kept.len() + total <= MOST_BYTES;
        if gathers && total < LARGE_BYTES && has_room {
            pieces
                .iter()
                .for_each(|piece| state.kept.extend_from_slice(piece));
            return Poll::Ready(Ok(total));
        }
        ready!(state.drain(context))?;
        Pin::new(&mut state.stream).poll_write_vectored(context, pieces)
    }
}

struct Listed<S>(Arc<Mutex<State<S>>>);

impl<S: AsyncWrite + Send + Unpin> Keeper for Listed<S> {
    fn write(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if let Err(error) = ready!(state.flush(context)) {
            // Nobody would write again, whom nothing wakes.
            state.failed = Some(error);
            context.waker().wake_by_ref();
        }
        state.is_listed = false;
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Send + Unpin + 'static> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        if let Some(error) = state.failed.take() {
            return Poll::Ready(Err(error));
        }
        if self.list(state) {
            return Poll::Ready(Ok(()));
        }
        state.flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if let Some(error) = state.failed.take() {
            return Poll::Ready(Err(error));
        }
        ready!(state.flush(context))?;
        Pin::new(&mut state.stream).poll_shutdown(context)
    }
}

/// A task whose connections write when its turn ends.
pub struct Gathering<F> {
    task: Pin<Box<F>>,
    /// Those that have kept something.
    keepers: Vec<Arc<dyn Keeper>>,
}

impl<F> Gathering<F> {
    /// This task, gathering.
    pub fn new(task: F) -> Self {
        Self {
            task: Box::pin(task),
            keepers: Vec::new(),
        }
    }
}

/// One turn. Puts back what was before when it ends, also where the task panics.
struct Turn(Option<Vec<Arc<dyn Keeper>>>);

impl Turn {
    fn begin(keepers: Vec<Arc<dyn Keeper>>) -> Self {
        Self(TURN.replace(Some(keepers)))
    }

    /// Those that have kept something.
    fn end(self) -> Vec<Arc<dyn Keeper>> {
        TURN.take().unwrap_or_default()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TURN.set(self.0.take());
    }
}

impl<F: Future> Future for Gathering<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let turn = Turn::begin(std::mem::take(&mut this.keepers));
        let polled = this.task.as_mut().poll(context);
        this.keepers = turn.end();
        this.keepers.retain(|keeper| keeper.write(context).is_pending());
        polled
    }
}

/// Runs hyper's tasks on tokio, each gathering.
#[derive(Debug, Clone, Copy, Default)]
pub struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        #[expect(
            clippy::disallowed_methods,
            reason = "hyper's own tasks end with their connections"
        )]
        tokio::spawn(Gathering::new(task));
    }
}

#[cfg(test)]
mod tests;
