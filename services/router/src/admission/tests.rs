use std::pin::pin;

use futures::FutureExt as _;
use tokio::task::JoinSet;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_place_that_comes_free_goes_to_the_most_urgent() {
    let door = Admission::new(1, 10);
    let first = door.enter(Priority::Normal, HOUR).await.unwrap();
    let mut normal = pin!(door.enter(Priority::Normal, HOUR));
    let mut urgent = pin!(door.enter(Priority::Urgent, HOUR));
    assert!(normal.as_mut().now_or_never().is_none());
    assert!(urgent.as_mut().now_or_never().is_none());
    assert_eq!((door.in_flight(), door.waiting()), (1, 2));
    drop(first);
    let second = urgent.await.unwrap();
    assert!(normal.as_mut().now_or_never().is_none());
    drop(second);
    drop(normal.await.unwrap());
    assert_eq!((door.in_flight(), door.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_the_urgent_displace() {
    let door = Admission::new(1, 1);
    let _first = door.enter(Priority::Normal, HOUR).await.unwrap();
    let mut low = pin!(door.enter(Priority::Low, HOUR));
    assert!(low.as_mut().now_or_never().is_none());
    assert_eq!(
        door.enter(Priority::Low, HOUR).await.unwrap_err(),
        Refused::Full(1)
    );
    let mut high = pin!(door.enter(Priority::High, HOUR));
    assert!(high.as_mut().now_or_never().is_none());
    assert_eq!(low.await.unwrap_err(), Refused::Full(1));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_deadline_and_who_leaves_frees_the_queue() {
    let door = Admission::new(1, 1);
    let first = door.enter(Priority::Normal, HOUR).await.unwrap();
    assert_eq!(
        door.enter(Priority::Normal, HOUR).await.unwrap_err(),
        Refused::TimedOut
    );
    assert_eq!(door.waiting(), 0);
    {
        let mut leaves = pin!(door.enter(Priority::Normal, HOUR));
        assert!(leaves.as_mut().now_or_never().is_none());
        assert_eq!(door.waiting(), 1);
    }
    assert_eq!(door.waiting(), 0);
    drop(first);
    assert_eq!(door.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_place_given_to_a_caller_who_leaves_is_passed_on() {
    let door = Admission::new(1, 10);
    let first = door.enter(Priority::Normal, HOUR).await.unwrap();
    let mut next = pin!(door.enter(Priority::Normal, HOUR));
    {
        let mut leaves = pin!(door.enter(Priority::High, HOUR));
        assert!(leaves.as_mut().now_or_never().is_none());
        assert!(next.as_mut().now_or_never().is_none());
        drop(first);
    }
    assert!(next.await.is_ok());
    assert_eq!(door.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn never_more_than_the_places_and_everybody_gets_through() {
    let door = Admission::new(3, 100);
    let mut calls = JoinSet::new();
    for number in 0..60usize {
        let door = door.clone();
        calls.spawn(async move {
            let permit = door.enter(Priority::ALL[number % 4], HOUR).await.unwrap();
            assert!(door.in_flight() <= 3);
            tokio::time::sleep(Duration::from_millis(number as u64 % 7)).await;
            drop(permit);
        });
    }
    assert_eq!(calls.join_all().await.len(), 60);
    assert_eq!((door.in_flight(), door.waiting()), (0, 0));
}
