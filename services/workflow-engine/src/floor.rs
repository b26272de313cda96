//! The shop floor: the [`Schedule`] behind a lock, the mailboxes of the runs at work, and the bell for the driver.
//!
//! Whoever wants something of a run says it here, whatever the run does at that moment: one at work finds it in its
//! mailbox, one that waits is taken out of its line and put to work with the message in hand. A run gives its
//! mailbox up and is parked under the same lock under which messages are sent, so none is lost between the two.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_api::json;
use muster_workflow_dsl::run::{Blocker, Stimulus};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::error::Error;
use crate::run::{Record, RunId, Summary};
use crate::schedule::{
    Bounds, Counts, Full, Hindrance, Left, NamespaceCounts, Newcomer, Place, Schedule, Seized, Withdrawn,
};

/// Messages that may wait for one run. More than one person rarely asks at once.
const MAILBOX: usize = 16;

/// Runs in line that are kept in memory as they were accepted: those that are to begin soon. The others are read when they begin.
const MOST_ACCEPTED: usize = 256;

/// Longest input of such a run, as JSON in bytes.
const LONGEST_INPUT: usize = 64 << 10;

/// How long whoever worked on a run that has ended may take to let it go.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

/// Something that is wanted of a run.
#[derive(Debug)]
pub(crate) enum Command {
    /// React to something: pause, end, take an answer.
    Act {
        /// What it is to react to.
        stimulus: Box<Stimulus>,
        /// The run as it is afterwards, durably.
        reply: oneshot::Sender<Result<Summary, Error>>,
    },
    /// Look at the world: something outside may have come.
    Look,
    /// Say what it does.
    Describe {
        /// One for each thing that it does or waits for.
        reply: oneshot::Sender<Vec<Blocker>>,
    },
}

/// A run as it was accepted. Whoever works on it first need not read it: nobody else has written it since.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) record: Record,
    pub(crate) summary: Summary,
}

/// A run to work on.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: RunId,
    pub(crate) mailbox: mpsc::Receiver<Command>,
    /// The run, where nobody has worked on it and it is in memory.
    pub(crate) accepted: Option<Box<Accepted>>,
    /// Whether it holds a slot; one that was taken out of its turn does not.
    pub(crate) slot: bool,
    /// Since when it had been due again, if it was, and waited for the slot.
    pub(crate) due_since: Option<Timestamp>,
}

/// What came of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The run will get it.
    Delivered,
    /// The run's mailbox is full.
    Busy,
    /// It cannot go on; says why.
    SetAside(String),
    /// It is not among those that have not ended.
    Unknown,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Floor {
    state: Mutex<State>,
    bell: Notify,
    /// Rings when runs have ended.
    departures: Notify,
}

#[derive(Debug)]
struct State {
    schedule: Schedule,
    mailboxes: HashMap<RunId, mpsc::Sender<Command>>,
    /// Some of the runs that nobody has worked on; see [`Accepted`].
    accepted: HashMap<RunId, Box<Accepted>>,
    /// Runs that were taken out of their turn.
    urgent: VecDeque<Job>,
    /// Runs at work that are to look again at what they wait for.
    roused: HashSet<RunId>,
    closed: bool,
}

/// A place in the line; given up if dropped.
pub(crate) struct Reservation<'a> {
    floor: &'a Floor,
    namespace: Arc<str>,
    used: bool,
}

impl Reservation<'_> {
    /// The run is durable and joins the line.
    pub(crate) fn admit(self, run: Newcomer) {
        self.admit_with(run, None);
    }

    /// The same of a run that nobody has worked on, which is kept in memory while there are not too many of them.
    pub(crate) fn admit_accepted(self, accepted: Accepted) {
        let run = accepted.summary.newcomer();
        let is_small = json::length(&accepted.record.input) <= LONGEST_INPUT;
        self.admit_with(run, is_small.then(|| Box::new(accepted)));
    }

    fn admit_with(mut self, run: Newcomer, accepted: Option<Box<Accepted>>) {
        self.used = true;
        let mut state = self.floor.state.lock();
        if let Some(accepted) = accepted.filter(|_| state.accepted.len() < MOST_ACCEPTED) {
            state.accepted.insert(run.id.clone(), accepted);
        }
        state.schedule.admit(run);
        drop(state);
        self.floor.bell.notify_one();
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.floor.state.lock().schedule.give_up(&self.namespace);
        }
    }
}

impl Floor {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let state = State {
            schedule: Schedule::new(bounds),
            mailboxes: HashMap::new(),
            accepted: HashMap::new(),
            urgent: VecDeque::new(),
            roused: HashSet::new(),
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            bell: Notify::new(),
            departures: Notify::new(),
        }
    }

    /// Keeps a place in the line.
    pub(crate) fn reserve(&self, namespace: Arc<str>) -> Result<Reservation<'_>, Full> {
        self.state.lock().schedule.reserve(&namespace)?;
        Ok(Reservation {
            floor: self,
            namespace,
            used: false,
        })
    }

    /// Changes the schedule, for the start.
    pub(crate) fn prepare(&self, change: impl FnOnce(&mut Schedule)) {
        change(&mut self.state.lock().schedule);
        self.bell.notify_one();
    }

    /// The next run to work on, if there is one.
    pub(crate) fn next(&self, now: Timestamp) -> Option<Job> {
        let mut state = self.state.lock();
        if let Some(job) = state.urgent.pop_front() {
            return Some(job);
        }
        let id = state.schedule.next(now)?;
        let due_since = state.schedule.take_due_since(&id);
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        state.mailboxes.insert(id.clone(), sender);
        let accepted = state.accepted.remove(&id);
        Some(Job {
            id,
            mailbox,
            accepted,
            slot: true,
            due_since,
        })
    }

    /// When the next parked run is due.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.state.lock().schedule.next_due()
    }

    /// Resolves when there may be something to do.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Gives a message to the run, which is put to work for it if it waits.
    pub(crate) fn command(&self, id: &RunId, command: Command) -> Result<Sent, Error> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::ShuttingDown);
        }
        Ok(match state.schedule.seize(id) {
            Seized::Active => deliver(&state, id, command),
            Seized::SetAside(why) => Sent::SetAside(why),
            Seized::Unknown => Sent::Unknown,
            Seized::Taken => {
                let (sender, mailbox) = mpsc::channel(MAILBOX);
                state.mailboxes.insert(id.clone(), sender);
                let sent = deliver(&state, id, command);
                let accepted = state.accepted.remove(id);
                state.urgent.push_back(Job {
                    id: id.clone(),
                    mailbox,
                    accepted,
                    slot: false,
                    due_since: None,
                });
                self.bell.notify_one();
                sent
            }
        })
    }

    /// Something outside may have come for the run: one that is parked gets its turn, one at work is told. It also looks
    /// whenever it is put to work, so that nothing is to be done for one that waits for a slot.
    pub(crate) fn rouse(&self, id: &RunId) {
        let mut state = self.state.lock();
        if let Some(Place::Active { .. }) = state.schedule.rouse(id) {
            state.roused.insert(id.clone());
            // A full mailbox will do: whoever empties it looks.
            deliver(&state, id, Command::Look);
        }
        drop(state);
        self.bell.notify_one();
    }

    /// Whether the run has been roused since it was asked last.
    pub(crate) fn was_roused(&self, id: &RunId) -> bool {
        self.state.lock().roused.remove(id)
    }

    /// Gives a message to the run if it is at work.
    pub(crate) fn command_if_active(&self, id: &RunId, command: Command) -> Sent {
        deliver(&self.state.lock(), id, command)
    }

    /// Parks the run, unless there is a message for it, or it goes on elsewhere: whoever is roused at work finds one.
    pub(crate) fn park(&self, job: &Job, due: Option<Timestamp>) -> bool {
        let mut state = self.state.lock();
        if !job.mailbox.is_empty() || !state.mailboxes.contains_key(&job.id) {
            return false;
        }
        state.roused.remove(&job.id);
        state.mailboxes.remove(&job.id);
        state.schedule.leave(&job.id, Left::Parked(due));
        drop(state);
        self.bell.notify_one();
        true
    }

    /// Puts the run back in line, unless there is a message for it, or it goes on elsewhere.
    pub(crate) fn line_up(&self, job: &Job) -> bool {
        let mut state = self.state.lock();
        if !job.mailbox.is_empty() || !state.mailboxes.contains_key(&job.id) {
            return false;
        }
        state.mailboxes.remove(&job.id);
        state.schedule.leave(&job.id, Left::Waits);
        drop(state);
        self.bell.notify_one();
        true
    }

    /// Takes runs off the floor that go on elsewhere. Whoever works on one finds its mailbox closed, stops and lets it go.
    pub(crate) fn withdraw(&self, is_of: impl Fn(&RunId) -> bool) -> Withdrawn {
        let mut state = self.state.lock();
        let state = &mut *state;
        // Nobody has begun with those that were taken out of their turn.
        let (gone, urgent): (VecDeque<Job>, VecDeque<Job>) = std::mem::take(&mut state.urgent)
            .into_iter()
            .partition(|job| is_of(&job.id));
        state.urgent = urgent;
        for job in gone {
            state.schedule.leave(&job.id, Left::Parked(None));
        }
        let withdrawn = state.schedule.withdraw(is_of);
        for id in withdrawn.idle.iter().chain(&withdrawn.at_work) {
            state.mailboxes.remove(id);
            state.accepted.remove(id);
            state.roused.remove(id);
        }
        self.departures.notify_waiters();
        withdrawn
    }

    /// The runs that somebody works on.
    pub(crate) fn at_work(&self) -> Vec<RunId> {
        self.state.lock().schedule.at_work()
    }

    /// Waits until nobody works on a run that has ended; `false` if that takes too long.
    pub(crate) async fn until_gone(&self, id: &RunId) -> bool {
        let gone = async {
            loop {
                let mut departure = std::pin::pin!(self.departures.notified());
                departure.as_mut().enable();
                if self.place(id).is_none() {
                    return;
                }
                departure.await;
            }
        };
        tokio::time::timeout(LAST_MOMENTS, gone).await.is_ok()
    }

    /// The run is not worked on any more. One that was withdrawn meanwhile leaves the floor, whatever it was to wait for.
    pub(crate) fn leave(&self, id: &RunId, left: Left) {
        let mut state = self.state.lock();
        let left = match state.mailboxes.remove(id) {
            Some(_) => left,
            None => Left::Ended,
        };
        state.roused.remove(id);
        state.schedule.leave(id, left);
        drop(state);
        self.bell.notify_one();
        self.departures.notify_waiters();
    }

    /// A run that was set aside goes on.
    pub(crate) fn take_up(&self, id: &RunId) {
        self.state.lock().schedule.take_up(id);
        self.bell.notify_one();
    }

    /// Where the run is, and what it waits for if it waits for a slot.
    pub(crate) fn place(&self, id: &RunId) -> Option<(Place, Option<Hindrance>)> {
        let state = self.state.lock();
        let place = state.schedule.place(id)?.clone();
        Some((place, state.schedule.hindrance(id)))
    }

    /// How the runs of each namespace stand that has some.
    pub(crate) fn namespaces(&self) -> Vec<NamespaceCounts> {
        self.state.lock().schedule.namespaces()
    }

    /// From now on so many runs may work at the same time.
    pub(crate) fn set_slots(&self, slots: usize) {
        self.state.lock().schedule.set_slots(slots);
        self.bell.notify_one();
    }

    pub(crate) fn counts(&self) -> Counts {
        self.state.lock().schedule.counts()
    }

    /// Takes no more messages.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        // Whoever waits for an answer from these learns that there will be none.
        state.urgent.clear();
    }
}

fn deliver(state: &State, id: &RunId, command: Command) -> Sent {
    match state.mailboxes.get(id).map(|mailbox| mailbox.try_send(command)) {
        Some(Ok(())) => Sent::Delivered,
        Some(Err(mpsc::error::TrySendError::Full(_))) => Sent::Busy,
        Some(Err(mpsc::error::TrySendError::Closed(_))) | None => Sent::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> RunId {
        text.parse().unwrap()
    }

    fn floor(most_pending: usize) -> Floor {
        Floor::new(Bounds {
            slots: 1,
            most_pending,
            ..Bounds::default()
        })
    }

    fn newcomer(text: &str) -> Newcomer {
        Newcomer {
            id: id(text),
            namespace: "default".into(),
            claim: Arc::default(),
        }
    }

    fn cancel() -> Command {
        Command::Act {
            stimulus: Box::new(Stimulus::Tick),
            reply: oneshot::channel().0,
        }
    }

    #[test]
    fn a_message_finds_a_run_wherever_it_is() {
        let floor = floor(10);
        floor.prepare(|schedule| {
            ["a", "b"]
                .map(newcomer)
                .into_iter()
                .for_each(|run| schedule.restore(run))
        });
        let now = Timestamp::UNIX_EPOCH;
        let mut working = floor.next(now).unwrap();
        assert_eq!(floor.command(&id("a"), cancel()).unwrap(), Sent::Delivered);
        assert!(!floor.park(&working, Some(now)), "a message waits");
        assert!(working.mailbox.try_recv().is_ok());
        assert!(floor.park(&working, None));

        assert_eq!(floor.command(&id("a"), cancel()).unwrap(), Sent::Delivered);
        let mut urgent = floor.next(now).unwrap();
        assert_eq!(urgent.id, id("a"));
        assert!(urgent.mailbox.try_recv().is_ok());
        floor.leave(&id("a"), Left::Ended);
        assert_eq!(floor.command(&id("a"), cancel()).unwrap(), Sent::Unknown);
        assert_eq!(floor.next(now).unwrap().id, id("b"));
        assert_eq!(
            floor.command_if_active(&id("b"), cancel()),
            Sent::Unknown,
            "its worker is gone"
        );
    }

    #[test]
    fn a_run_that_is_roused_gets_its_turn_and_one_at_work_is_told() {
        let floor = floor(10);
        floor.prepare(|schedule| schedule.restore(newcomer("a")));
        let now = Timestamp::UNIX_EPOCH;
        let mut working = floor.next(now).unwrap();
        floor.rouse(&id("a"));
        assert!(!floor.park(&working, None), "it has been told to look");
        assert!(matches!(working.mailbox.try_recv(), Ok(Command::Look)));
        for due in [None, Some(Timestamp::MAX)] {
            assert!(floor.park(&working, due));
            assert!(floor.next(now).is_none());
            floor.rouse(&id("a"));
            floor.rouse(&id("a"));
            working = floor.next(now).unwrap();
            assert!(floor.next(now).is_none(), "one turn");
            assert_eq!(floor.next_due(), None);
        }
        floor.rouse(&id("nobody"));
    }

    #[test]
    fn runs_that_go_elsewhere_leave_and_those_at_work_are_told() {
        let floor = floor(10);
        floor.prepare(|schedule| {
            ["a", "b", "c", "d"]
                .map(newcomer)
                .into_iter()
                .for_each(|run| schedule.restore(run))
        });
        let now = Timestamp::UNIX_EPOCH;
        let mut working = floor.next(now).unwrap();
        assert_eq!(floor.command(&id("b"), cancel()).unwrap(), Sent::Delivered);
        let withdrawn = floor.withdraw(|run| *run != id("d"));
        assert_eq!(withdrawn.at_work, [id("a")]);
        assert_eq!(withdrawn.idle.len(), 2, "{withdrawn:?}");
        assert_eq!(floor.at_work(), [id("a")]);
        assert_eq!(floor.command(&id("b"), cancel()).unwrap(), Sent::Unknown);
        assert_eq!(floor.command(&id("a"), cancel()).unwrap(), Sent::Unknown);
        assert!(!floor.park(&working, None) && !floor.line_up(&working));
        assert!(matches!(
            working.mailbox.try_recv(),
            Err(mpsc::error::TryRecvError::Disconnected)
        ));
        floor.leave(&id("a"), Left::SetAside("the store cannot be reached".to_owned()));
        assert_eq!(floor.at_work(), []);
        assert!(floor.place(&id("a")).is_none(), "it goes on elsewhere");
        floor.take_up(&id("a"));
        assert_eq!(floor.next(now).unwrap().id, id("d"));
        assert_eq!(floor.counts().pending, 0);
    }

    #[test]
    fn mailboxes_are_bounded_and_close() {
        let floor = floor(10);
        floor.prepare(|schedule| schedule.restore(newcomer("a")));
        let _working = floor.next(Timestamp::UNIX_EPOCH).unwrap();
        for _ in 0..MAILBOX {
            assert_eq!(floor.command_if_active(&id("a"), cancel()), Sent::Delivered);
        }
        assert_eq!(floor.command(&id("a"), cancel()).unwrap(), Sent::Busy);
        floor.close();
        assert!(matches!(
            floor.command(&id("a"), cancel()),
            Err(Error::ShuttingDown)
        ));
    }

    #[test]
    fn a_reservation_that_is_not_used_is_given_up() {
        let floor = floor(1);
        let reservations = [
            floor.reserve("default".into()).unwrap(),
            floor.reserve("default".into()).unwrap(),
        ];
        assert!(floor.reserve("default".into()).is_err());
        drop(reservations);
        floor.reserve("default".into()).unwrap().admit(newcomer("a"));
        assert_eq!(floor.counts().pending, 1);
    }
}
