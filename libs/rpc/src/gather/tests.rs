use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use futures::FutureExt as _;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// A stream that takes so many bytes at a time and then refuses once, and counts the writes.
#[derive(Debug, Default)]
struct Socket {
    taken: Vec<u8>,
    most: usize,
    is_full: bool,
    writes: usize,
    broken: bool,
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.writes += 1;
        if std::mem::take(&mut self.is_full) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = bytes.len().min(self.most);
        self.is_full = count < bytes.len();
        self.taken.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn socket(most: usize) -> (Gathered<Socket>, Arc<Mutex<State<Socket>>>) {
    let gathered = Gathered::new(Socket {
        most,
        ..Socket::default()
    });
    let state = Arc::clone(&gathered.0);
    (gathered, state)
}

/// Writes the pieces, each flushed, in one turn.
async fn write_all(gathered: &mut Gathered<Socket>, pieces: &[Vec<u8>]) -> io::Result<()> {
    for piece in pieces {
        gathered.write_all(piece).await?;
        gathered.flush().await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_one_turn_says_goes_out_in_one_write_and_what_is_said_outside_at_once() {
    let (mut gathered, state) = socket(usize::MAX);
    let pieces = vec![vec![1; 1_000]; 20];
    write_all(&mut gathered, &pieces).await.unwrap();
    assert_eq!(state.lock().stream.writes, 20);
    Gathering::new(write_all(&mut gathered, &pieces)).await.unwrap();
    let state = state.lock();
    assert_eq!((state.stream.writes, state.stream.taken.len()), (21, 40_000));
    assert!(state.kept.is_empty() && state.kept.capacity() <= IDLE_BYTES);
}

#[tokio::test]
async fn an_error_after_the_turn_wakes_the_task_and_is_told_by_its_next_flush() {
    let (mut gathered, state) = socket(usize::MAX);
    state.lock().stream.broken = true;
    let mut turns = 0;
    let task = poll_fn(|context| {
        turns += 1;
        let outcome = Pin::new(&mut gathered).poll_write(context, b"x");
        match outcome {
            Poll::Ready(Ok(_)) => Poll::Pending,
            other => other,
        }
    });
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);
    let mut gathering = Gathering::new(task);
    assert!(Pin::new(&mut gathering).poll(&mut context).is_pending());
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    let told = Pin::new(&mut gathering).poll(&mut context);
    assert!(matches!(told, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe));
}

#[tokio::test]
async fn a_task_that_panics_leaves_nothing_behind_for_the_next() {
    let task = Gathering::new(async { assert!(!std::hint::black_box(true), "on purpose") });
    let outcome = std::panic::AssertUnwindSafe(task).catch_unwind().await;
    assert!(outcome.is_err());
    assert!(TURN.with_borrow(Option::is_none));
}

#[tokio::test]
async fn a_connection_over_tcp_says_the_same_through_both_ends() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let writing = async {
        let mut gathered = Gathered::new(tokio::net::TcpStream::connect(address).await.unwrap());
        for piece in sent.chunks(7_001) {
            gathered.write_all(piece).await.unwrap();
            gathered.flush().await.unwrap();
        }
        gathered.shutdown().await.unwrap();
    };
    let reading = async {
        let mut read = Vec::new();
        let (stream, _) = listener.accept().await.unwrap();
        Gathered::new(stream).read_to_end(&mut read).await.unwrap();
        read
    };
    let ((), read) = tokio::join!(Gathering::new(writing), reading);
    assert_eq!(read, sent);
}

proptest! {
    #[test]
    fn bytes_keep_their_order_whatever_the_socket_takes(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..30_000), 1..20),
        most in 1_usize..50_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut gathered, state) = socket(most);
        runtime.block_on(async {
            Gathering::new(async {
                write_all(&mut gathered, &pieces).await.unwrap();
                tokio::task::yield_now().await;
                gathered.shutdown().await.unwrap();
            }).await;
        });
        prop_assert_eq!(&state.lock().stream.taken, &pieces.concat());
        prop_assert!(state.lock().kept.is_empty());
    }
}
