//! Which instance owns which task, so that every later call on the task reaches it.
//!
//! The first answer that is a task makes its sender the owner; that is durable before the caller hears of a task that goes on.
//! One that has ended says all there is with the answer, so its owner becomes durable right after it, in order, and the caller
//! does not wait for the disk: a router that is killed in between forgets who has the task, and nothing else.
//! A task id that belongs to one agent cannot be taken over by another: the store looks at the owner that it has when it keeps one,
//! so that this holds among routers too. Within an agent the owner may change: whichever instance answers with the task last has
//! it. A small cache spares the store the repeated news of a long stream; what it says of an instance that is gone is asked again.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use muster_runtime::Shutdown;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::Error;
use crate::fleet::Key;
use crate::store::{Owner, Owners, SWEPT_AT_ONCE};

/// Most owners that are remembered beside the store.
const CACHED: usize = 10_000;

/// Most owners that are to be written after the answer; beyond that, answers wait for the disk again.
const MOST_LATER: usize = 4_096;

/// Owners that are written at once: the store makes one commit of those that come together.
const AT_ONCE: usize = 256;

/// Owners of tasks.
pub struct Ownership {
    store: Arc<dyn Owners>,
    retention: SignedDuration,
    most: usize,
    cache: Arc<Mutex<Cache>>,
    /// To whoever writes after the answer, if somebody does.
    later: Option<mpsc::Sender<(String, Owner)>>,
}

/// Writes owners after the answer.
pub struct Writer {
    store: Arc<dyn Owners>,
    retention: SignedDuration,
    cache: Arc<Mutex<Cache>>,
    queue: mpsc::Receiver<(String, Owner)>,
}

impl Writer {
    /// Works until a shutdown is asked for, and then until nothing is left.
    ///
    /// # Errors
    /// Never.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), Infallible> {
        let mut writes = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.requested(), if !self.queue.is_closed() => self.queue.close(),
                Some(()) = next(&mut writes), if !writes.is_empty() => {}
                entry = self.queue.recv(), if writes.len() < AT_ONCE => {
                    let Some((task, owner)) = entry else { break };
                    let (store, cache) = (Arc::clone(&self.store), Arc::clone(&self.cache));
                    let retention = self.retention;
                    writes.spawn(async move {
                        match store.put(&task, &owner, retention).await {
                            Ok(None) => {}
                            Ok(Some(other)) => {
                                cache.lock().forget(&task);
                                tracing::error!(
                                    task,
                                    agent = owner.agent,
                                    owner = other.agent,
                                    "an agent answered with a task of another one, which keeps it"
                                );
                            }
                            Err(error) => {
                                tracing::error!(task, %error, "the owner of a task that has ended cannot be kept");
                            }
                        }
                    });
                }
            }
        }
        while next(&mut writes).await.is_some() {}
        Ok(())
    }
}

/// The end of one of them, also of one that panicked.
async fn next(writes: &mut JoinSet<()>) -> Option<()> {
    writes.join_next().await.map(|ended| {
        if let Err(error) = ended {
            tracing::error!(%error, "the owner of a task that has ended cannot be kept");
        }
    })
}

#[derive(Default)]
struct Cache {
    owners: HashMap<String, Owner>,
    order: VecDeque<String>,
}

impl Cache {
    fn keep(&mut self, task: &str, owner: &Owner) {
        if self.owners.insert(task.to_owned(), owner.clone()).is_none() {
            self.order.push_back(task.to_owned());
        }
        if self.order.len() > CACHED
            && let Some(oldest) = self.order.pop_front()
        {
            self.owners.remove(&oldest);
        }
    }

    fn forget(&mut self, task: &str) {
        if self.owners.remove(task).is_some() {
            self.order.retain(|kept| kept != task);
        }
    }
}

impl Ownership {
    /// Owners in `store`, each kept for `retention`, at most so many.
    #[must_use]
    pub fn new(store: Arc<dyn Owners>, retention: SignedDuration, most: usize) -> Self {
        Self {
            store,
            retention,
            most,
            cache: Arc::default(),
            later: None,
        }
    }

    /// The same with somebody who writes after the answer where that is enough.
    #[must_use]
    pub fn with_writer(self) -> (Self, Writer) {
        let (later, queue) = mpsc::channel(MOST_LATER);
        let writer = Writer {
            store: Arc::clone(&self.store),
            retention: self.retention,
            cache: Arc::clone(&self.cache),
            queue,
        };
        let later = Some(later);
        (Self { later, ..self }, writer)
    }

    /// The owner of a task, if it is known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn of(&self, task: &str, now: Timestamp) -> Result<Option<Owner>, Error> {
        let cached = self.cache.lock().owners.get(task).cloned();
        let owner = match cached {
            Some(owner) => Some(owner),
            None => self.store.get(task).await.map_err(unavailable)?,
        };
        Ok(owner.filter(|owner| now.duration_since(owner.since) < self.retention))
    }

    /// The owner of a task as the store has it now. Another router may have given the task a new one.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn of_now(&self, task: &str, now: Timestamp) -> Result<Option<Owner>, Error> {
        self.cache.lock().forget(task);
        let owner = self.of(task, now).await?;
        if let Some(owner) = &owner {
            self.cache.lock().keep(task, owner);
        }
        Ok(owner)
    }

    /// An instance answered with a task: it is the owner from now on, durably.
    ///
    /// # Errors
    /// When the task belongs to another agent, or the store cannot write.
    pub async fn record(&self, task: &str, key: &Key, caller: &str, now: Timestamp) -> Result<(), Error> {
        let Some(owner) = self.new_owner(task, key, caller, now)? else {
            return Ok(());
        };
        self.put(task, &owner).await
    }

    /// An instance answered with a task that has ended: it is the owner from now on, durably soon.
    ///
    /// # Errors
    /// When the task is known to belong to another agent, or the store cannot be written while many wait for it.
    pub async fn record_ended(
        &self,
        task: &str,
        key: &Key,
        caller: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let Some(owner) = self.new_owner(task, key, caller, now)? else {
            return Ok(());
        };
        let later = self.later.as_ref();
        // Before it is handed over: should the store say that the task is another's, it is forgotten again.
        self.cache.lock().keep(task, &owner);
        let is_taken = later.is_some_and(|later| later.try_send((task.to_owned(), owner.clone())).is_ok());
        if is_taken {
            return Ok(());
        }
        let kept = self.put(task, &owner).await;
        if kept.is_err() {
            self.cache.lock().forget(task);
        }
        kept
    }

    async fn put(&self, task: &str, owner: &Owner) -> Result<(), Error> {
        let put = self.store.put(task, owner, self.retention).await;
        if let Some(other) = put.map_err(unavailable)? {
            self.cache.lock().keep(task, &other);
            return Err(claimed(task, &owner.agent));
        }
        self.cache.lock().keep(task, owner);
        Ok(())
    }

    /// The owner to be kept; none if it is kept already. The store has the last word: it looks at the owner that it has in
    /// the moment in which it keeps another.
    ///
    /// Whoever began a task has it to its end: an answer to another caller does not change that.
    fn new_owner(&self, task: &str, key: &Key, caller: &str, now: Timestamp) -> Result<Option<Owner>, Error> {
        let known = self.cache.lock().owners.get(task).cloned();
        let known = known.filter(|owner| now.duration_since(owner.since) < self.retention);
        let begun_by = known.as_ref().and_then(|owner| owner.caller.clone());
        match known {
            Some(owner) if owner.agent != key.agent => return Err(claimed(task, &key.agent)),
            Some(owner) if owner.instance == key.instance => return Ok(None),
            Some(_) | None => {}
        }
        Ok(Some(Owner {
            agent: key.agent.clone(),
            instance: key.instance.clone(),
            since: now,
            caller: Some(begun_by.unwrap_or_else(|| caller.to_owned())),
        }))
    }

    /// Forgets what is past its retention. To be called now and then.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn sweep(&self, now: Timestamp) -> Result<(), Error> {
        let before = now.saturating_sub(self.retention).unwrap_or(Timestamp::MIN);
        while self.store.sweep(before, self.most).await.map_err(unavailable)? == SWEPT_AT_ONCE {}
        Ok(())
    }
}

fn claimed(task: &str, agent: &str) -> Error {
    Error::InvalidAnswer {
        agent: agent.to_owned(),
        detail: format!("it claims task '{task}', which belongs to another agent"),
    }
}

fn unavailable(error: crate::store::Error) -> Error {
    Error::Store {
        what: "the owner of the task cannot be read or kept",
        detail: error.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    fn key(agent: &str, instance: &str) -> Key {
        Key {
            agent: agent.to_owned(),
            instance: instance.to_owned(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ownership() -> Ownership {
        Ownership::new(Arc::new(Memory::default()), SignedDuration::from_secs(100), 1000)
    }

    #[tokio::test]
    async fn the_owner_may_change_within_an_agent_and_not_beyond() {
        let ownership = ownership();
        ownership
            .record("t", &key("weather", "w1"), "ada", at(1))
            .await
            .unwrap();
        ownership
            .record("t", &key("weather", "w2"), "ada", at(2))
            .await
            .unwrap();
        assert_eq!(ownership.of("t", at(3)).await.unwrap().unwrap().instance, "w2");
        let stolen = ownership.record("t", &key("planning", "p1"), "ada", at(3)).await;
        assert!(matches!(stolen, Err(Error::InvalidAnswer { .. })));
        assert_eq!(ownership.of("t", at(3)).await.unwrap().unwrap().agent, "weather");
    }

    #[tokio::test]
    async fn the_owner_of_an_ended_task_is_known_at_once_and_kept_before_the_writer_ends() {
        let (ownership, writer) = ownership().with_writer();
        let store = Arc::clone(&ownership.store);
        for number in 0..600 {
            let task = number.to_string();
            ownership
                .record_ended(&task, &key("weather", "w1"), "ada", at(1))
                .await
                .unwrap();
            assert_eq!(ownership.of(&task, at(2)).await.unwrap().unwrap().instance, "w1");
        }
        assert_eq!(store.get("0").await.unwrap(), None, "nobody has written yet");
        let stolen = ownership
            .record_ended("0", &key("planning", "p1"), "ada", at(3))
            .await;
        assert!(matches!(stolen, Err(Error::InvalidAnswer { .. })));
        let shutdown = Shutdown::new();
        shutdown.trigger();
        writer.run(shutdown).await.unwrap();
        for number in 0..600 {
            assert!(
                store.get(&number.to_string()).await.unwrap().is_some(),
                "{number}"
            );
        }
        // Nobody writes later any more: the next one is kept before it is known.
        ownership
            .record_ended("late", &key("weather", "w1"), "ada", at(4))
            .await
            .unwrap();
        assert!(store.get("late").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn after_its_retention_a_task_is_unknown_and_swept() {
        let ownership = ownership();
        ownership
            .record("t", &key("weather", "w1"), "ada", at(1))
            .await
            .unwrap();
        assert!(ownership.of("t", at(100)).await.unwrap().is_some());
        assert!(ownership.of("t", at(101)).await.unwrap().is_none());
        ownership.sweep(at(200)).await.unwrap();
        assert_eq!(ownership.store.get("t").await.unwrap(), None);
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut cache = Cache::default();
        let owner = Owner {
            agent: "a".to_owned(),
            instance: "i".to_owned(),
            since: at(1),
            caller: None,
        };
        for number in 0..CACHED + 100 {
            cache.keep(&number.to_string(), &owner);
        }
        assert_eq!((cache.owners.len(), cache.order.len()), (CACHED, CACHED));
    }
}
