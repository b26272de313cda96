//! Follows the registry's stream and keeps the view up to date, for as long as the router lives.
//!
//! How far it has come, [`Position`] knows. Until the last piece of a snapshot has come, messages are routed by the old view.

use std::sync::Arc;
use std::time::Duration;

use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::watch_agents_response::{Change, Snapshot};
use muster_api::registry::{self, RemovalReason, WatchAgentsRequest, WatchAgentsResponse};
use muster_rpc::backoff::Backoff;
use muster_rpc::following::{self, Gap, Step};
use muster_runtime::clock::SharedClock;
use muster_runtime::trust::identity::Channel;
use parking_lot::RwLock;
use tokio::time::MissedTickBehavior;
use tonic::{Status, Streaming};

use super::instance::{self, Card};
use super::{Instance, Key, View};

/// Waits between attempts to reach the registry.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(200), Duration::from_secs(5));

/// Largest change that is taken: a registry that knows no pieces sends every card of the fleet in one snapshot.
const MAX_CHANGE_BYTES: usize = 64 << 20;

/// How often the view is swept.
const SWEEP: Duration = Duration::from_secs(1);

/// What whoever follows is told, beside the view itself. Reports are in the view and no news, but for one that says that its
/// instance takes work again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News<'a> {
    /// The view as a whole has changed: a snapshot was applied, or the stream was lost or taken up again.
    View,
    /// The view was swept.
    Swept,
    /// An instance takes work that did not before: it is new, or has come back.
    Came,
    /// An instance has said goodbye.
    Left(&'a Key),
    /// An instance is gone without having said goodbye.
    Lost(&'a Key),
}

/// How far the view has come in the registry's stream: plain data.
#[derive(Debug, Default)]
pub struct Position(following::Position<Instance>);

impl Position {
    /// What to ask the registry for.
    #[must_use]
    pub fn request(&self) -> WatchAgentsRequest {
        self.0.request()
    }

    /// A stream has ended: what was not whole is worth nothing.
    pub fn broke(&mut self) {
        self.0.broke();
    }

    /// Takes an answer in. Returns what is to be applied to the view now.
    ///
    /// # Errors
    /// When something is missing before it. The next request then asks for a snapshot.
    pub fn take(&mut self, response: WatchAgentsResponse) -> Result<Option<Update>, Gap> {
        let taken = self
            .0
            .take(response, |piece, instances| instances.extend(usable_of(piece)));
        Ok(match taken? {
            Step::Piece => None,
            Step::Snapshot { instances, .. } => Some(Update::Snapshot(instances)),
            Step::Resumed => Some(Update::Resumed),
            Step::Changed(change) => change.and_then(|change| Update::of(*change)),
        })
    }
}

/// What is to be done to the view.
#[derive(Debug)]
pub enum Update {
    /// These are all live instances.
    Snapshot(Vec<Instance>),
    /// The stream goes on where the last one ended.
    Resumed,
    /// An instance is new or has changed.
    Upserted(Box<Instance>),
    /// An instance says something of itself.
    Reported(registry::watch_agents_response::Report),
    /// An instance left.
    Removed(registry::watch_agents_response::Removal),
}

impl Update {
    /// What a change of the registry means; `None` for an instance that cannot be called. A snapshot must be whole.
    fn of(change: Change) -> Option<Self> {
        Some(match change {
            Change::Snapshot(snapshot) => Self::Snapshot(usable_of(snapshot).collect()),
            Change::Upserted(instance) => Self::Upserted(Box::new(usable(instance)?)),
            Change::Removed(removal) => Self::Removed(removal),
            Change::Reported(report) => Self::Reported(report),
            Change::Resumed(_) => Self::Resumed,
        })
    }
}

/// Follows the registry until it is dropped. `changed` is called with the news, after the view has changed. Nobody else may
/// write to the view.
pub async fn follow(
    view: Arc<RwLock<View>>,
    registry: Channel,
    clock: SharedClock,
    changed: impl Fn(News<'_>),
) {
    let mut client = RegistryServiceClient::new(registry).max_decoding_message_size(MAX_CHANGE_BYTES);
    let mut follower = Follower {
        view: &view,
        clock: &clock,
        changed: &changed,
        position: Position::default(),
        failures: 0,
    };
    loop {
        let before = follower.failures;
        let ended = match client.watch_agents(follower.position.request()).await {
            Ok(stream) => follower.read(&mut stream.into_inner()).await,
            Err(status) => status,
        };
        follower.position.broke();
        if before > 0 && follower.failures == 0 {
            tracing::info!("the registry had come back");
        }
        view.write().disconnected();
        changed(News::View);
        if follower.failures == 0 {
            tracing::warn!(error = %ended.message(), "the registry is away; routing goes on from the last view");
        }
        tokio::time::sleep(BACKOFF.delay(follower.failures, rand::random())).await;
        follower.sweep();
        follower.failures = follower.failures.saturating_add(1);
    }
}

struct Follower<'a, C> {
    view: &'a RwLock<View>,
    clock: &'a SharedClock,
    changed: &'a C,
    position: Position,
    /// Attempts in a row that brought nothing.
    failures: u32,
}

impl<C: Fn(News<'_>)> Follower<'_, C> {
    /// Reads the stream to its end and returns why it ended.
    async fn read(&mut self, stream: &mut Streaming<WatchAgentsResponse>) -> Status {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let message = tokio::select! {
                message = stream.message() => message,
                _ = sweep.tick() => {
                    self.sweep();
                    continue;
                }
            };
            let response = match message {
                Ok(Some(response)) => response,
                Ok(None) => return Status::unavailable("the stream ended"),
                Err(status) => return status,
            };
            match self.position.take(response) {
                Ok(update) => {
                    if let Some(update) = update {
                        self.apply(update);
                    }
                    self.failures = 0;
                }
                Err(gap) => return Status::data_loss(format!("starting over: {gap}")),
            }
        }
    }

    fn apply(&self, update: Update) {
        let now = self.clock.monotonic();
        let is_whole = matches!(update, Update::Snapshot(_) | Update::Resumed);
        let outcome = if let Update::Snapshot(_) = update {
            // A hundred thousand instances take a while; nobody who chooses one waits for it.
            let mut next = self.view.read().clone();
            let outcome = apply_update(&mut next, update, now);
            std::mem::swap(&mut *self.view.write(), &mut next);
            outcome
        } else {
            apply_update(&mut self.view.write(), update, now)
        };
        match outcome {
            Outcome::Departed { key, lost: true } => (self.changed)(News::Lost(&key)),
            Outcome::Departed { key, lost: false } => (self.changed)(News::Left(&key)),
            Outcome::Came => (self.changed)(News::Came),
            Outcome::Applied if is_whole => (self.changed)(News::View),
            Outcome::Applied => {}
        }
    }

    fn sweep(&self) {
        let lost = self.view.write().sweep(self.clock.monotonic());
        for key in &lost {
            (self.changed)(News::Lost(key));
        }
        (self.changed)(News::Swept);
    }
}

/// What a change means for those who wait, or are with an instance.
enum Outcome {
    /// Nothing.
    Applied,
    /// An instance takes work that did not before.
    Came,
    /// An instance has left.
    Departed {
        key: Key,
        /// Whether without having said goodbye.
        lost: bool,
    },
}

/// Takes one change of the registry over into the view; a snapshot must be whole. Returns the instance that is lost by it.
pub fn apply(view: &mut View, change: Change, now: Duration) -> Option<Key> {
    match apply_update(view, Update::of(change)?, now) {
        Outcome::Departed { key, lost: true } => Some(key),
        Outcome::Departed { lost: false, .. } | Outcome::Came | Outcome::Applied => None,
    }
}

fn apply_update(view: &mut View, update: Update, now: Duration) -> Outcome {
    let came = match update {
        Update::Snapshot(instances) => {
            view.snapshot(instances, now);
            false
        }
        Update::Resumed => {
            view.resume(now);
            false
        }
        Update::Upserted(instance) => view.upsert(*instance, now),
        Update::Reported(report) => {
            let said = (&report).into();
            let key = Key {
                agent: report.agent_id,
                instance: report.instance_id,
            };
            view.report(&report.namespace, &key, said, now)
        }
        Update::Removed(removal) => {
            // One of another region whose registry is not heard may well be alive.
            let may_live = matches!(
                removal.reason(),
                RemovalReason::Deregistered | RemovalReason::Unheard
            );
            let key = Key {
                agent: removal.agent_id,
                instance: removal.instance_id,
            };
            view.remove(&removal.namespace, &key, now);
            // One of another namespace may have the name of one that is here.
            if view.instance(&key).is_none() {
                return Outcome::Departed { key, lost: !may_live };
            }
            false
        }
    };
    if came { Outcome::Came } else { Outcome::Applied }
}

/// The instances of a snapshot, or of a piece of one, that can be called.
fn usable_of(snapshot: Snapshot) -> impl Iterator<Item = Instance> {
    let cards: Vec<Card> = snapshot.cards.into_iter().map(Card::from).collect();
    let mut places = snapshot.card_indexes.into_iter();
    let instances = snapshot.instances.into_iter();
    instances.filter_map(move |instance| {
        let place = places.next().and_then(|place| usize::try_from(place).ok());
        match place.and_then(|place| cards.get(place)) {
            Some(card) => read(instance, |instance| Instance::with_card(instance, card)),
            None => usable(instance),
        }
    })
}

fn usable(instance: registry::Instance) -> Option<Instance> {
    read(instance, Instance::try_from)
}

fn read(
    instance: registry::Instance,
    parse: impl FnOnce(registry::Instance) -> Result<Instance, instance::Error>,
) -> Option<Instance> {
    let (agent, id) = (instance.agent_id.clone(), instance.instance_id.clone());
    match parse(instance) {
        Ok(instance) => Some(instance),
        Err(error) => {
            tracing::warn!(agent, instance = id, %error, "the registry lists an instance that cannot be called");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_api::a2a::{AgentCard, AgentSkill};
    use muster_api::registry::watch_agents_response::{Removal, Report, Resumption};

    use super::*;

    fn removal(reason: RemovalReason) -> Change {
        Change::Removed(Removal {
            namespace: "default".to_owned(),
            agent_id: "weather".to_owned(),
            instance_id: "w1".to_owned(),
            reason: reason.into(),
        })
    }

    #[test]
    fn an_instance_is_lost_when_its_lease_ended_and_not_when_it_said_goodbye_or_may_live() {
        for (reason, is_lost) in [
            (RemovalReason::Expired, true),
            (RemovalReason::Deregistered, false),
            (RemovalReason::Unheard, false),
        ] {
            let mut view = View::new("default", Duration::ZERO);
            view.snapshot(vec![Instance::example("weather", "w1", &["s"])], Duration::ZERO);
            assert_eq!(
                apply(&mut view, removal(reason), Duration::ZERO).is_some(),
                is_lost
            );
            assert_eq!(view.instances().count(), 0);
        }
    }

    fn told(id: &str) -> registry::Instance {
        registry::Instance {
            agent_id: "weather".to_owned(),
            instance_id: id.to_owned(),
            endpoint: "http://127.0.0.1:1".to_owned(),
            epoch: 7,
            ..registry::Instance::default()
        }
    }

    fn card() -> AgentCard {
        AgentCard {
            skills: vec![AgentSkill {
                id: "s".to_owned(),
                ..AgentSkill::default()
            }],
            ..AgentCard::default()
        }
    }

    fn response(revision: u64, change: Change) -> WatchAgentsResponse {
        WatchAgentsResponse {
            revision,
            change: Some(change),
            incarnation: "one".to_owned(),
        }
    }

    fn piece(revision: u64, id: &str, continues: bool, more: bool) -> WatchAgentsResponse {
        let snapshot = Snapshot {
            instances: vec![told(id)],
            continues,
            more,
            cards: vec![card()],
            card_indexes: vec![0],
        };
        response(revision, Change::Snapshot(snapshot))
    }

    fn reported(revision: u64, epoch: u64, load: f64) -> WatchAgentsResponse {
        let report = Report {
            namespace: "default".to_owned(),
            agent_id: "weather".to_owned(),
            instance_id: "w1".to_owned(),
            epoch,
            load,
            ..Report::default()
        };
        response(revision, Change::Reported(report))
    }

    #[test]
    fn a_snapshot_counts_when_its_last_piece_has_come() {
        let mut position = Position::default();
        assert!(position.take(piece(5, "w1", false, true)).unwrap().is_none());
        assert!(position.take(piece(5, "w2", true, true)).unwrap().is_none());
        let whole = position.take(piece(5, "w3", true, false)).unwrap();
        assert!(matches!(whole, Some(Update::Snapshot(instances)) if instances.len() == 3));
        assert_eq!(
            (
                position.request().since_revision,
                &*position.request().incarnation
            ),
            (5, "one")
        );
    }

    #[test]
    fn a_snapshot_that_breaks_off_is_asked_for_again() {
        let begun = || {
            let mut position = Position::default();
            position.take(piece(5, "w1", false, true)).unwrap();
            position
        };
        for next in [
            piece(6, "w2", true, true),
            piece(5, "w2", false, true),
            reported(6, 7, 0.5),
        ] {
            let mut position = begun();
            assert_eq!(position.take(next).unwrap_err(), Gap::Piece);
            assert_eq!(position.request().since_revision, 0);
        }
        let mut position = begun();
        position.broke();
        assert_eq!(
            position.take(piece(5, "w2", true, false)).unwrap_err(),
            Gap::Piece
        );
    }

    #[test]
    fn each_revision_follows_the_one_before_or_the_view_starts_over() {
        for (seen, is_gap) in [(6, false), (5, true), (7, true)] {
            let mut position = Position::default();
            position.take(piece(5, "w1", false, false)).unwrap();
            let taken = position.take(reported(seen, 7, 0.5));
            assert_eq!(taken.is_err(), is_gap, "{seen}");
            let expected = if is_gap { 0 } else { 6 };
            assert_eq!(position.request().since_revision, expected);
        }
        let mut position = Position::default();
        position.take(piece(5, "w1", false, false)).unwrap();
        let unknown = WatchAgentsResponse {
            change: None,
            ..reported(6, 7, 0.5)
        };
        assert!(position.take(unknown).unwrap().is_none(), "nothing to apply");
        assert!(position.take(reported(7, 7, 0.5)).is_ok(), "and nothing lost");
    }

    #[test]
    fn a_stream_is_taken_up_where_the_last_one_ended_and_nowhere_else() {
        let resumed = |revision| response(revision, Change::Resumed(Resumption {}));
        let mut position = Position::default();
        position.take(piece(5, "w1", false, false)).unwrap();
        position.broke();
        assert!(matches!(position.take(resumed(5)), Ok(Some(Update::Resumed))));
        assert!(position.take(reported(6, 7, 0.5)).is_ok());
        assert_eq!(position.take(resumed(4)).unwrap_err(), Gap::Resumption(4));
    }

    #[test]
    fn a_report_changes_what_it_is_about_and_only_of_its_registration() {
        let mut view = View::new("default", Duration::ZERO);
        let mut position = Position::default();
        let mut play = |response| {
            if let Some(update) = position.take(response).unwrap() {
                apply_update(&mut view, update, Duration::ZERO);
            }
            let key = Key {
                agent: "weather".to_owned(),
                instance: "w1".to_owned(),
            };
            view.instance(&key).unwrap().load
        };
        assert!((play(piece(5, "w1", false, false)) - 0.0).abs() < f64::EPSILON);
        assert!((play(reported(6, 7, 0.5)) - 0.5).abs() < f64::EPSILON);
        assert!((play(reported(7, 6, 0.9)) - 0.5).abs() < f64::EPSILON);
    }
}
