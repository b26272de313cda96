use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use muster_runtime::Metrics;
use muster_runtime::clock::{Clock as _, ManualClock};
use muster_runtime::trust::{self, Caller, Kind, Roles};
use tokio::sync::Semaphore;

use super::*;
use crate::metrics::DEFINITIONS;

/// A Redis: what it decides is decided by the same function, when it is let.
struct Fake {
    due: Mutex<Duration>,
    clock: Arc<ManualClock>,
    asked: AtomicUsize,
    is_away: AtomicBool,
    answers: Semaphore,
}

#[async_trait]
impl Grants for Fake {
    async fn take(&self, _: &str, rate: Rate, wanted: u32) -> Result<Taken, store::Error> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers.acquire().await;
        answer.expect("open").forget();
        if self.is_away.load(Ordering::SeqCst) {
            return Err(store::Error("Redis at nowhere".to_owned()));
        }
        Ok(gcra::take(
            &mut self.due.lock(),
            rate,
            wanted,
            self.clock.monotonic(),
        ))
    }
}

/// A clock, a Redis that answers so often, and a limiter of a router that shares it.
fn shared(answers: usize) -> (Arc<ManualClock>, Arc<Fake>, Limiter, Metrics) {
    let clock = Arc::new(ManualClock::default());
    clock.advance(Duration::from_secs(100));
    let fake = Arc::new(Fake {
        due: Mutex::default(),
        clock: Arc::clone(&clock),
        asked: AtomicUsize::new(0),
        is_away: AtomicBool::new(false),
        answers: Semaphore::new(answers),
    });
    let metrics = Metrics::new(DEFINITIONS).expect("good definitions");
    let grants = Arc::clone(&fake) as Arc<dyn Grants>;
    let limiter = Limiter::new(
        "callers",
        Some(grants),
        Arc::clone(&clock) as SharedClock,
        Meters::new(metrics.clone()),
    );
    (clock, fake, limiter, metrics)
}

/// So many at once; how many were given, and when those come again that were not.
async fn at_once(limiter: &Limiter, rate: Rate, count: usize) -> (usize, Option<Duration>) {
    let all = (0..count).map(|_| limiter.take("a", rate));
    let outcomes = futures::future::join_all(all).await;
    let given = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    (given, outcomes.into_iter().find_map(Result::err))
}

#[tokio::test]
async fn of_many_at_once_one_asks_for_all_and_a_refusal_is_not_asked_for_again() {
    let (clock, fake, limiter, _) = shared(0);
    let rate = Rate::new(600, 20);
    let mut all = Box::pin(at_once(&limiter, rate, 64));
    assert!(futures::poll!(&mut all).is_pending());
    fake.answers.add_permits(100);
    assert_eq!(all.await, (20, Some(Duration::from_millis(100))));
    let asked = || fake.asked.load(Ordering::SeqCst);
    assert_eq!(
        asked(),
        3,
        "by the first, for those who came meanwhile, and in vain"
    );
    assert_eq!(at_once(&limiter, rate, 64).await.0, 0);
    assert_eq!(asked(), 3);
    clock.advance(Duration::from_millis(100));
    assert_eq!(
        at_once(&limiter, rate, 2).await,
        (1, Some(Duration::from_millis(100)))
    );
}

#[tokio::test]
async fn at_an_even_rate_redis_is_asked_a_few_times_a_second_and_gives_no_more_than_the_limit() {
    let (clock, fake, limiter, _) = shared(1000);
    let rate = Rate::new(6_000, 600);
    let mut given = 0;
    for _ in 0..1_000 {
        given += at_once(&limiter, rate, 1).await.0;
        clock.advance(Duration::from_millis(10));
    }
    assert_eq!(given, 1_000);
    let asked = fake.asked.load(Ordering::SeqCst);
    assert!((35..=45).contains(&asked), "{asked} times in 10 s");
}

#[tokio::test]
async fn while_redis_is_away_the_router_decides_alone_and_says_so() {
    let (clock, fake, limiter, metrics) = shared(100);
    let rate = Rate::new(60, 2);
    let alone = |is: u8| format!(r#"router_limits_alone{{kind="callers"}} {is}"#);
    fake.is_away.store(true, Ordering::SeqCst);
    assert_eq!(at_once(&limiter, rate, 1).await.0, 1);
    assert_eq!(
        at_once(&limiter, rate, 5).await,
        (1, Some(Duration::from_secs(1)))
    );
    assert_eq!(fake.asked.load(Ordering::SeqCst), 1, "not for each request");
    assert!(metrics.render().contains(&alone(1)), "{}", metrics.render());
    clock.advance(PAUSE);
    assert_eq!(at_once(&limiter, rate, 5).await.0, 1);
    assert_eq!(fake.asked.load(Ordering::SeqCst), 2, "one tries");
    fake.is_away.store(false, Ordering::SeqCst);
    clock.advance(PAUSE);
    assert_eq!(at_once(&limiter, rate, 1).await.0, 1);
    assert_eq!(fake.asked.load(Ordering::SeqCst), 3);
    assert!(metrics.render().contains(&alone(0)), "{}", metrics.render());
}

#[tokio::test]
async fn of_those_who_wait_for_a_redis_that_is_gone_one_waits_for_it() {
    let (_, fake, limiter, _) = shared(0);
    fake.is_away.store(true, Ordering::SeqCst);
    let rate = Rate::new(60, 20);
    let mut all = Box::pin(at_once(&limiter, rate, 20));
    assert!(futures::poll!(&mut all).is_pending());
    fake.answers.add_permits(1);
    assert_eq!(all.await.0, 20);
    assert_eq!(fake.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn who_leaves_while_it_asks_keeps_nobody_waiting() {
    let (_, fake, limiter, _) = shared(0);
    let rate = Rate::new(60, 2);
    let mut first = Box::pin(limiter.take("a", rate));
    assert!(futures::poll!(&mut first).is_pending());
    let mut second = Box::pin(limiter.take("a", rate));
    assert!(futures::poll!(&mut second).is_pending());
    assert_eq!(fake.asked.load(Ordering::SeqCst), 1);
    drop(first);
    fake.answers.add_permits(1);
    assert_eq!(second.await, Ok(()));
}

#[tokio::test]
async fn those_who_are_not_told_apart_are_limited_only_where_it_is_asked_for() {
    let clock = Arc::new(ManualClock::default()) as SharedClock;
    let callers = |per_minute, burst| {
        let metrics = Metrics::new(DEFINITIONS).expect("good definitions");
        let limiter = Limiter::new("callers", None, Arc::clone(&clock), Meters::new(metrics));
        Callers::new(limiter, per_minute, burst)
    };
    async fn made(callers: &Callers, who: &Access) -> usize {
        let mut made = 0;
        while made < 500 && callers.charge(who).await.is_ok() {
            made += 1;
        }
        made
    }
    let caller = |kind, name| {
        let caller = Caller::new(kind, None, name, Roles::default(), trust::Grants::default());
        Access::of(caller)
    };
    let [ada, grace] = ["ada", "grace"].map(|name| caller(Kind::EndUser, name));
    let anybody = Access::of(Caller::anybody());
    let engine = caller(Kind::Service, "engine");
    // An agent may have been taken over.
    let agent = Access::of(Caller::new(
        Kind::Service,
        None,
        "spiffe://d/ns/agents/sa/weather",
        [trust::Role::Agent].into_iter().collect(),
        trust::Grants::default(),
    ));
    let usual = callers(None, None);
    assert_eq!(made(&usual, &anybody).await, 500);
    assert_eq!(made(&usual, &ada).await, 100);
    assert_eq!(made(&usual, &grace).await, 100);
    assert_eq!(made(&usual, &engine).await, 500);
    assert_eq!(made(&usual, &agent).await, 100);
    let set = callers(Some(60), Some(5));
    assert_eq!(made(&set, &anybody).await, 5);
    let Err(Error::RateLimited {
        per_minute,
        retry_after,
    }) = set.charge(&anybody).await
    else {
        panic!("not refused");
    };
    assert_eq!((per_minute, retry_after), (60, Duration::from_secs(1)));
    assert_eq!(made(&callers(Some(0), None), &ada).await, 500);
}
