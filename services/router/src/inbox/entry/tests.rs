use super::*;

pub(crate) const POLICY: Policy = Policy {
    ageing: Duration::from_secs(60),
    done_retention: Duration::from_secs(3600),
    dead_retention: Duration::from_secs(7200),
    failures: 3,
    entries: 5,
    total: 8,
    ended: 4,
    bytes: 1000,
};

pub(crate) fn draft(id: &str, target: &str, priority: Priority) -> Draft {
    Draft {
        id: id.to_owned(),
        target: target.to_owned(),
        priority,
        delivery: Delivery::Push,
        fingerprint: format!("{id} {target}"),
        caller: "anybody".to_owned(),
        headers: vec![("traceparent".to_owned(), "00-1".to_owned())],
        ttl: Duration::from_secs(600),
        delay: Duration::ZERO,
        body: bytes::Bytes::from(format!("body of {id}")),
    }
}

fn entry() -> Entry {
    Entry::new(&draft("m", "weather", Priority::Normal), 1, 1_000_000)
}

fn lent() -> Entry {
    entry()
        .lent("t", "router", Duration::from_secs(30), 1_000_000)
        .unwrap()
}

fn retry(delay: u64, counts: bool) -> Change {
    Change::Retry {
        token: "t".to_owned(),
        delay: Duration::from_secs(delay),
        failure: Some(Failure::new("UNAVAILABLE", "", "no")),
        counts,
    }
}

#[test]
fn only_the_holder_of_the_lease_ends_it() {
    let finish = |token: &str| Change::Finish {
        token: token.to_owned(),
        by: ("weather".to_owned(), "w1".to_owned()),
        kept: 3,
        dropped: 0,
    };
    assert_eq!(
        lent().changed(finish("u"), 1_000_001, &POLICY),
        Err(Refusal::LeaseLost)
    );
    let done = lent().changed(finish("t"), 1_000_001, &POLICY).unwrap();
    assert_eq!((done.status(), done.bytes()), (Status::Done, 3));
    assert_eq!(
        done.changed(finish("t"), 1_000_002, &POLICY),
        Err(Refusal::LeaseLost)
    );
}

#[test]
fn a_failure_holds_it_back_and_the_last_one_ends_it() {
    let held = lent().changed(retry(5, true), 1_000_000, &POLICY).unwrap();
    assert!(!held.is_ready());
    assert_eq!((held.failures, held.due(&POLICY)), (1, 1_005_000));
    let ready = held.at_its_time(1_005_000, &POLICY).unwrap();
    assert!(ready.is_ready());

    let mut tired = lent();
    tired.failures = 2;
    let patient = tired
        .clone()
        .changed(retry(5, false), 1_000_000, &POLICY)
        .unwrap();
    assert_eq!((patient.failures, patient.status()), (2, Status::Pending));
    let dead = tired.changed(retry(5, true), 1_000_000, &POLICY).unwrap();
    assert_eq!(
        dead.state,
        State::Dead {
            at: 1_000_000,
            reason: Reason::Failed
        }
    );
}

#[test]
fn a_lease_that_runs_out_puts_it_back_or_ends_it() {
    let back = lent().at_its_time(1_030_000, &POLICY).unwrap();
    assert!(back.is_ready());
    assert_eq!((back.attempts, back.failures), (1, 1));
    let late = lent().at_its_time(1_600_000, &POLICY).unwrap();
    assert_eq!(
        late.state,
        State::Dead {
            at: 1_600_000,
            reason: Reason::Expired
        }
    );
}

#[test]
fn nothing_is_lent_out_after_its_time() {
    let late = entry().lent("t", "router", Duration::from_secs(1), 1_600_000);
    assert_eq!(late, Err(Refusal::State(Status::Pending)));
}

#[test]
fn what_is_replayed_gets_its_whole_time_again() {
    let dead = entry().changed(Change::Cancel, 1_100_000, &POLICY).unwrap();
    let again = dead.changed(Change::Replay, 2_000_000, &POLICY).unwrap();
    assert_eq!((again.is_ready(), again.expires_at), (true, 2_600_000));
    assert_eq!(
        again.changed(Change::Replay, 2_000_000, &POLICY),
        Err(Refusal::State(Status::Pending))
    );
}

#[test]
fn a_message_that_waits_overtakes_fresh_ones_that_are_more_urgent() {
    let at =
        |priority, second: u64| Entry::new(&draft("m", "weather", priority), 1, second * 1000).order(&POLICY);
    assert!(at(Priority::Urgent, 1000) < at(Priority::Low, 900));
    assert!(at(Priority::Low, 900) < at(Priority::Urgent, 1081));
    assert!(at(Priority::High, 1000) < at(Priority::Normal, 1000));
}
