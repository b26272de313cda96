//! What every store of answers must do.

use super::*;

/// A store and its time: Redis has a clock of its own, which nobody can turn.
pub(crate) struct Bench<'s> {
    pub(crate) store: &'s dyn Answers,
    /// Waits until so many milliseconds have passed for the store, and says what time it is.
    pub(crate) wait: &'s (dyn Fn(u64) -> futures::future::BoxFuture<'s, Timestamp> + Sync),
}

const ID: Id = [7; 32];

fn claim(leader: &str, body: u8) -> Claim {
    Claim {
        fingerprint: [body; 32],
        leader: leader.to_owned(),
        lease: Duration::from_secs(60),
        keep: Duration::from_secs(3600),
    }
}

fn short(leader: &str) -> Claim {
    Claim {
        lease: Duration::from_millis(20),
        ..claim(leader, 1)
    }
}

pub(crate) fn answer(bytes: &[u8]) -> Answer {
    Answer {
        head: Head {
            agent: "weather".to_owned(),
            instance: "w1".to_owned(),
            extensions: vec!["urn:x".to_owned()],
            said: Said::Whole,
        },
        bytes: bytes.to_vec(),
    }
}

/// Runs the suite on an empty store.
pub(crate) async fn run(bench: Bench<'_>) {
    leads_and_answers(&bench).await;
    takes_over(&bench).await;
    leaves_and_forgets(&bench).await;
    one_of_many_leads(&bench).await;
}

async fn leads_and_answers(Bench { store, wait }: &Bench<'_>) {
    let now = wait(0).await;
    assert_eq!(store.claim(&ID, &claim("a", 1), now).await.unwrap(), Found::Lead);
    // The same word twice is one word.
    assert_eq!(store.claim(&ID, &claim("a", 1), now).await.unwrap(), Found::Lead);
    let found = store.claim(&ID, &claim("b", 1), now).await.unwrap();
    assert!(
        matches!(found, Found::UnderWay { left } if left > Duration::from_secs(50) && left <= Duration::from_secs(60)),
        "{found:?}"
    );
    assert_eq!(
        store.claim(&ID, &claim("b", 2), now).await.unwrap(),
        Found::Reused
    );
    assert!(store.renew(&ID, &claim("a", 1), now).await.unwrap());
    assert!(!store.renew(&ID, &claim("b", 1), now).await.unwrap());
    assert!(
        !store
            .keep(&ID, &claim("b", 1), &answer(b"no"), now)
            .await
            .unwrap()
    );

    let said = answer(b"\0\xff{\"\n");
    for _ in 0..2 {
        assert!(store.keep(&ID, &claim("a", 1), &said, now).await.unwrap());
    }
    for caller in ["a", "b"] {
        assert_eq!(
            store.claim(&ID, &claim(caller, 1), now).await.unwrap(),
            Found::Answered(said.clone())
        );
    }
    assert_eq!(
        store.claim(&ID, &claim("b", 2), now).await.unwrap(),
        Found::Reused
    );
    // What is answered stays so.
    assert!(!store.renew(&ID, &claim("a", 1), now).await.unwrap());
    store.leave(&ID, &claim("a", 1)).await.unwrap();
    assert!(
        !store
            .keep(&ID, &claim("b", 1), &answer(b"no"), now)
            .await
            .unwrap()
    );
    assert_eq!(
        store.claim(&ID, &claim("c", 1), now).await.unwrap(),
        Found::Answered(said)
    );

    // Also what is not the whole answer.
    let task = Answer {
        head: Head {
            said: Said::Task("täsk".to_owned()),
            extensions: Vec::new(),
            ..answer(b"").head
        },
        bytes: Vec::new(),
    };
    let large = Answer {
        head: Head {
            said: Said::TooLarge(usize::MAX),
            ..answer(b"").head
        },
        bytes: Vec::new(),
    };
    for (id, said) in [([8; 32], task), ([9; 32], large)] {
        // An answer whose record is lost is kept all the same.
        assert!(store.keep(&id, &claim("a", 1), &said, now).await.unwrap());
        assert_eq!(
            store.claim(&id, &claim("b", 1), now).await.unwrap(),
            Found::Answered(said)
        );
    }
}

async fn takes_over(Bench { store, wait }: &Bench<'_>) {
    let id = [1; 32];
    let now = wait(0).await;
    assert_eq!(store.claim(&id, &short("a"), now).await.unwrap(), Found::Lead);
    let now = wait(40).await;
    assert_eq!(
        store.claim(&id, &claim("x", 2), now).await.unwrap(),
        Found::Reused
    );
    assert_eq!(
        store.claim(&id, &claim("b", 1), now).await.unwrap(),
        Found::TakenOver
    );
    // The first leader was only slow.
    assert!(!store.renew(&id, &short("a"), now).await.unwrap());
    assert!(!store.keep(&id, &short("a"), &answer(b"a"), now).await.unwrap());
    store.leave(&id, &short("a")).await.unwrap();
    assert!(store.renew(&id, &claim("b", 1), now).await.unwrap());
    assert!(store.keep(&id, &claim("b", 1), &answer(b"b"), now).await.unwrap());
    let found = store.claim(&id, &short("a"), now).await.unwrap();
    assert_eq!(found, Found::Answered(answer(b"b")));

    // A lease that has ended and that nobody has taken over does no harm.
    let id = [2; 32];
    assert_eq!(store.claim(&id, &short("a"), now).await.unwrap(), Found::Lead);
    let now = wait(40).await;
    assert!(store.keep(&id, &short("a"), &answer(b"a"), now).await.unwrap());
}

async fn leaves_and_forgets(Bench { store, wait }: &Bench<'_>) {
    let id = [3; 32];
    let now = wait(0).await;
    assert_eq!(store.claim(&id, &claim("a", 1), now).await.unwrap(), Found::Lead);
    store.leave(&id, &claim("a", 1)).await.unwrap();
    // Nothing is left of it, so another body leads too.
    assert_eq!(store.claim(&id, &claim("b", 2), now).await.unwrap(), Found::Lead);
    store.leave(&id, &claim("b", 2)).await.unwrap();

    let brief = Claim {
        keep: Duration::from_millis(20),
        ..claim("a", 1)
    };
    assert_eq!(store.claim(&id, &brief, now).await.unwrap(), Found::Lead);
    assert!(store.keep(&id, &brief, &answer(b"a"), now).await.unwrap());
    let now = wait(40).await;
    let later = Claim {
        fingerprint: [2; 32],
        leader: "b".to_owned(),
        ..brief
    };
    assert_eq!(store.claim(&id, &later, now).await.unwrap(), Found::Lead);
    store.leave(&id, &later).await.unwrap();
}

async fn one_of_many_leads(Bench { store, wait }: &Bench<'_>) {
    let id = [4; 32];
    let now = wait(0).await;
    let calls = (0..16).map(|number| async move {
        let claim = claim(&format!("call {number}"), 1);
        store.claim(&id, &claim, now).await.unwrap()
    });
    let found = futures::future::join_all(calls).await;
    let leaders = found.iter().filter(|found| **found == Found::Lead).count();
    assert_eq!(leaders, 1, "{found:?}");
}

/// What a store with a bound of three records and a thousand bytes must do in addition; empty.
pub(crate) async fn run_bounded(store: &dyn Answers) {
    let at = |second| Timestamp::from_second(second).unwrap();
    for number in 1..=3 {
        let id = [number; 32];
        let now = at(number.into());
        assert_eq!(store.claim(&id, &claim("a", 1), now).await.unwrap(), Found::Lead);
    }
    let more = [4; 32];
    assert_eq!(
        store.claim(&more, &claim("a", 1), at(4)).await.unwrap(),
        Found::Full
    );
    // What is there is not in question.
    let found = store.claim(&[1; 32], &claim("b", 1), at(4)).await.unwrap();
    assert!(matches!(found, Found::UnderWay { .. }));
    assert!(
        store
            .keep(&[1; 32], &claim("a", 1), &answer(&[0; 2000]), at(5))
            .await
            .unwrap()
    );
    store.leave(&[3; 32], &claim("a", 1)).await.unwrap();
    assert_eq!(
        store.claim(&more, &claim("a", 1), at(6)).await.unwrap(),
        Found::Full,
        "there are too many bytes now"
    );
    // The oldest goes, and the answer after it.
    assert_eq!(store.sweep_answers(at(5)).await.unwrap(), 1);
    assert_eq!(
        store.claim(&more, &claim("a", 1), at(6)).await.unwrap(),
        Found::Full
    );
    assert_eq!(store.sweep_answers(at(6)).await.unwrap(), 1);
    assert_eq!(
        store.claim(&more, &claim("a", 1), at(6)).await.unwrap(),
        Found::Lead
    );
    assert_eq!(store.sweep_answers(at(6)).await.unwrap(), 0);
}
