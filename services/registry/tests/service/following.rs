//! A mirror against the registry that it mirrors, through any outage; the union against a naive one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_api::a2a::{AgentCard, AgentSkill};
use muster_api::registry as proto;
use muster_registry::changes::Changes;
use muster_registry::federation::mirror::{Bounds, Mirror, Said};
use muster_registry::federation::union::Union;
use muster_registry::instance::{Instance, Key, Load, Origin, Report, wire};
use muster_registry::lease::{Change, Departure, Event, Moment};
use muster_rpc::following::{Position, Step};
use proptest::prelude::*;
use uuid::Uuid;

const GRACE: Duration = Duration::from_secs(300);
const BOUNDS: Bounds = Bounds {
    grace: GRACE,
    most: 100,
};

fn instance(number: u8, epoch: u64, load: u8) -> Instance {
    let message = proto::Instance {
        agent_id: format!("a{}", number % 3),
        card: Some(AgentCard {
            name: format!("version {}", epoch % 2),
            skills: vec![AgentSkill {
                id: "s".to_owned(),
                ..AgentSkill::default()
            }],
            ..AgentCard::default()
        }),
        endpoint: "http://127.0.0.1:1".to_owned(),
        ..proto::Instance::default()
    };
    let (profile, _) = wire::registration(message, Uuid::from_u128(u128::from(number) + 1)).unwrap();
    Instance {
        profile: Arc::new(profile),
        report: report(load),
        registered_at: Timestamp::UNIX_EPOCH,
        last_heartbeat_at: Timestamp::UNIX_EPOCH,
        epoch,
    }
}

fn report(load: u8) -> Report {
    Report {
        load: Load::new(f64::from(load % 11) / 10.0).unwrap(),
        ..Report::FRESH
    }
}

fn key(number: u8) -> Key {
    instance(number, 0, 0).key().clone()
}

/// A registry, as far as those who follow it see: what it holds, and the changes that it still knows.
struct Registry {
    incarnation: u128,
    held: BTreeMap<Key, Instance>,
    changes: Changes,
}

impl Registry {
    fn new(incarnation: u128) -> Self {
        Self {
            incarnation,
            held: BTreeMap::new(),
            changes: Changes::new(10, 4),
        }
    }

    fn change(&mut self, change: Change) {
        match &change {
            Change::Upserted(instance) | Change::Reported(instance) => {
                self.held.insert(instance.key().clone(), instance.clone());
            }
            Change::Removed(key, _) => {
                self.held.remove(key);
            }
        }
        let revision = self.changes.latest() + 1;
        self.changes.push(Event { revision, change });
    }

    /// A stream for who asks so.
    fn answer(&self, request: &proto::WatchAgentsRequest) -> Vec<proto::WatchAgentsResponse> {
        use proto::watch_agents_response::{Change as Told, Resumption, Snapshot};

        let opening = |revision: u64, change: Told| proto::WatchAgentsResponse {
            revision,
            change: Some(change),
            incarnation: Uuid::from_u128(self.incarnation).to_string(),
        };
        let is_known = request.incarnation == Uuid::from_u128(self.incarnation).to_string();
        let since = request.since_revision;
        if let (true, Ok(missed)) = (is_known && since > 0, self.changes.after(since, usize::MAX)) {
            let resumed = opening(since, Told::Resumed(Resumption {}));
            return std::iter::once(resumed)
                .chain(missed.into_iter().map(Into::into))
                .collect();
        }
        let all: Vec<&Instance> = self.held.values().collect();
        // In two pieces, of which the second may be empty.
        let (first, second) = all.split_at(all.len().div_ceil(2));
        let piece = |instances: &[&Instance], continues| Snapshot {
            instances: instances.iter().map(|instance| (*instance).into()).collect(),
            continues,
            more: !continues,
            ..Snapshot::default()
        };
        let revision = self.changes.latest();
        vec![
            opening(revision, Told::Snapshot(piece(first, false))),
            opening(revision, Told::Snapshot(piece(second, true))),
        ]
    }
}

/// One who follows it.
struct Follower {
    position: Position<Instance>,
    mirror: Mirror,
    origin: Arc<Origin>,
    connected: bool,
    /// Changes that are on their way.
    told: u64,
}

impl Follower {
    fn new(bounds: Bounds) -> Self {
        Self {
            position: Position::default(),
            mirror: Mirror::new(bounds, Duration::ZERO),
            origin: Arc::new(Origin::new("eu", "http://eu:7401")),
            connected: false,
            told: 0,
        }
    }

    fn read(&self, mut message: proto::Instance) -> Instance {
        let card = wire::checked_card(message.card.take().unwrap()).unwrap();
        wire::foreign(message, &card, &self.origin).unwrap()
    }

    /// Takes an answer in; whether the stream goes on.
    fn take(&mut self, response: proto::WatchAgentsResponse, now: Duration) -> bool {
        use proto::watch_agents_response::Change as Told;

        let origin = Arc::clone(&self.origin);
        let taken = self.position.take(response, |piece, into| {
            for mut message in piece.instances {
                let card = wire::checked_card(message.card.take().unwrap()).unwrap();
                into.push(wire::foreign(message, &card, &origin).unwrap());
            }
        });
        match taken {
            Ok(Step::Piece | Step::Changed(None)) => true,
            Ok(Step::Snapshot {
                instances,
                is_same_life,
            }) => {
                self.mirror.begin();
                for instance in instances {
                    self.mirror.is_there(instance);
                }
                self.mirror.end(is_same_life, now);
                true
            }
            Ok(Step::Resumed) => {
                let is_of_use = self.mirror.resumed();
                if !is_of_use {
                    self.position.start_over();
                }
                is_of_use
            }
            Ok(Step::Changed(Some(change))) => {
                match *change {
                    Told::Upserted(message) => {
                        let instance = self.read(message);
                        self.mirror.is_there(instance);
                    }
                    Told::Reported(told) => {
                        let known = Key {
                            namespace: told.namespace.as_str().into(),
                            agent_id: told.agent_id.as_str().into(),
                            instance_id: told.instance_id.parse().unwrap(),
                        };
                        self.mirror.said(Said {
                            key: known,
                            epoch: told.epoch,
                            report: Report {
                                load: Load::new(told.load).unwrap(),
                                ..Report::FRESH
                            },
                            heard_at: Timestamp::UNIX_EPOCH,
                        });
                    }
                    Told::Removed(told) => {
                        let gone = Key {
                            namespace: told.namespace.as_str().into(),
                            agent_id: told.agent_id.as_str().into(),
                            instance_id: told.instance_id.parse().unwrap(),
                        };
                        self.mirror.left(gone, Departure::Expired);
                    }
                    Told::Snapshot(_) | Told::Resumed(_) => unreachable!("taken by the position"),
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Opens a stream and takes the first `most` answers.
    fn connect(&mut self, registry: &Registry, most: usize, now: Duration) {
        self.lose(now);
        let answers = registry.answer(&self.position.request());
        let all = answers.len();
        for response in answers.into_iter().take(most) {
            if !self.take(response, now) {
                return;
            }
        }
        self.connected = most >= all;
        self.told = registry.changes.latest();
        if !self.connected {
            self.lose(now);
        }
    }

    fn lose(&mut self, now: Duration) {
        self.connected = false;
        self.position.broke();
        self.mirror.lost(now);
    }

    /// Takes in what has changed since, unless `skipped` of it is lost on the way.
    fn follow(&mut self, registry: &Registry, skipped: usize, now: Duration) {
        if !self.connected {
            return;
        }
        let Ok(events) = registry.changes.after(self.told, usize::MAX) else {
            return self.lose(now);
        };
        for event in events.into_iter().skip(skipped) {
            self.told = event.revision;
            if !self.take(event.into(), now) {
                return self.lose(now);
            }
        }
        self.told = registry.changes.latest();
    }

    fn shows(&self) -> BTreeMap<Key, (u64, u64)> {
        let known = (0..NUMBERS).filter_map(|number| self.mirror.get(&key(number)));
        known.map(seen).collect()
    }
}

/// How many instances there may be in these tests.
const NUMBERS: u8 = 6;

/// What is compared of an instance: which it is, its registration and its load.
fn seen(instance: &Instance) -> (Key, (u64, u64)) {
    let load = instance.report.load.get().to_bits();
    (instance.key().clone(), (instance.epoch, load))
}

#[derive(Debug, Clone)]
enum Act {
    Register(u8, u8),
    Report(u8, u8),
    Leave(u8),
    /// The registry was started anew and knows nobody.
    Restart,
    /// A stream, of which so many answers come.
    Connect(usize),
    Lose,
    /// What has changed comes, but for the first so many.
    Follow(usize),
    Pass(u16),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..NUMBERS, any::<u8>()).prop_map(|(who, load)| Act::Register(who, load)),
        4 => (0..NUMBERS, any::<u8>()).prop_map(|(who, load)| Act::Report(who, load)),
        3 => (0..NUMBERS).prop_map(Act::Leave),
        1 => Just(Act::Restart),
        3 => (0_usize..6).prop_map(Act::Connect),
        1 => Just(Act::Lose),
        5 => prop_oneof![4 => Just(0), 1 => 1_usize..3].prop_map(Act::Follow),
        2 => (0_u16..400).prop_map(Act::Pass),
    ]
}

proptest! {
    #[test]
    fn whatever_happened_on_the_way_who_follows_shows_the_same_in_the_end(
        acts in prop::collection::vec(act(), 0..80),
    ) {
        let mut registry = Registry::new(1);
        let mut follower = Follower::new(BOUNDS);
        let mut now = Duration::ZERO;
        let mut epoch = 0;
        for act in acts {
            match act {
                Act::Register(who, load) => {
                    epoch += 1;
                    registry.change(Change::Upserted(instance(who, epoch, load)));
                }
                Act::Report(who, load) => {
                    if let Some(known) = registry.held.get(&key(who)) {
                        let said = Instance { report: report(load), ..known.clone() };
                        registry.change(Change::Reported(said));
                    }
                }
                Act::Leave(who) => registry.change(Change::Removed(key(who), Departure::Expired)),
                Act::Restart => {
                    follower.lose(now);
                    registry = Registry::new(registry.incarnation + 1);
                }
                Act::Connect(most) => follower.connect(&registry, most, now),
                Act::Lose => follower.lose(now),
                Act::Follow(skipped) => follower.follow(&registry, skipped, now),
                Act::Pass(seconds) => {
                    now += Duration::from_secs(seconds.into());
                    follower.mirror.sweep(now);
                }
            }
        }
        let held: BTreeMap<_, _> = registry.held.values().map(seen).collect();
        // The first may find out that it has to start over.
        follower.connect(&registry, usize::MAX, now);
        follower.connect(&registry, usize::MAX, now);
        prop_assert!(follower.connected && follower.mirror.is_heard());
        let shown = follower.shows();
        for (key, it) in &held {
            prop_assert_eq!(shown.get(key), Some(it), "at once");
        }
        now += GRACE;
        follower.mirror.sweep(now);
        prop_assert_eq!(follower.shows(), held, "and nobody else after the grace");
    }

    #[test]
    fn the_union_shows_each_instance_once_and_tells_every_change_of_it(
        acts in prop::collection::vec((0_usize..3, 0..NUMBERS, 0_u8..4, any::<u8>()), 0..80),
    ) {
        let origins = ["eu", "us"].map(|region| Arc::new(Origin::new(region, "http://there:1")));
        let mut union = Union::new(origins.to_vec(), BOUNDS, 7, Duration::ZERO);
        let mut sources: [BTreeMap<Key, Instance>; 3] = Default::default();
        let mut watched: BTreeMap<Key, Instance> = BTreeMap::new();
        let mut revision = 7;
        let now = Moment { wall: Timestamp::UNIX_EPOCH, monotonic: Duration::ZERO };
        for (epoch, (source, who, what, load)) in (1..).zip(acts) {
            let known = sources[source].get(&key(who)).cloned();
            let change = match (what, known) {
                (0, _) | (_, None) => Change::Upserted(instance(who, epoch, load)),
                (1 | 2, Some(known)) => Change::Reported(Instance { report: report(load), ..known }),
                (_, Some(_)) => Change::Removed(key(who), Departure::Expired),
            };
            match &change {
                Change::Upserted(instance) | Change::Reported(instance) => {
                    sources[source].insert(instance.key().clone(), instance.clone());
                }
                Change::Removed(key, _) => _ = sources[source].remove(key),
            }
            match source.checked_sub(1) {
                None => union.own_changed(change),
                Some(peer) => union.peer(peer, |mirror| match change {
                    Change::Upserted(instance) | Change::Reported(instance) => mirror.is_there(instance),
                    Change::Removed(key, departure) => mirror.left(key, departure),
                }),
            }
            for event in union.take_events() {
                revision += 1;
                prop_assert_eq!(event.revision, revision, "no gaps");
                match event.change {
                    Change::Upserted(instance) => _ = watched.insert(instance.key().clone(), instance),
                    Change::Reported(instance) => {
                        let before = watched.insert(instance.key().clone(), instance.clone());
                        prop_assert_eq!(before.map(|before| before.epoch), Some(instance.epoch));
                    }
                    Change::Removed(key, _) => prop_assert!(watched.remove(&key).is_some()),
                }
            }
            let mut expected = BTreeMap::new();
            for source in sources.iter().rev() {
                expected.extend(source.values().map(seen));
            }
            prop_assert_eq!(&watched.values().map(seen).collect::<BTreeMap<_, _>>(), &expected);
            let (at, snapshot) = union.snapshot(now);
            prop_assert_eq!(at, revision);
            prop_assert_eq!(snapshot.len(), expected.len());
            prop_assert_eq!(&snapshot.iter().map(seen).collect::<BTreeMap<_, _>>(), &expected);
        }
        // Read anew, it tells the difference alone.
        union.own_replaced(sources[0].values().cloned().collect());
        prop_assert_eq!(union.take_events(), vec![]);
    }
}

fn heard(bounds: Bounds, numbers: std::ops::Range<u8>) -> Mirror {
    let mut mirror = Mirror::new(bounds, Duration::ZERO);
    mirror.begin();
    for number in numbers {
        mirror.is_there(instance(number, 1, 0));
    }
    mirror.end(false, Duration::ZERO);
    mirror
}

#[test]
fn a_registry_that_is_not_heard_takes_nobody_away_before_the_grace() {
    let mut mirror = heard(BOUNDS, 0..2);
    mirror.lost(Duration::from_secs(10));
    mirror.lost(Duration::from_secs(20));
    assert_eq!(mirror.sweep(Duration::from_secs(309)), vec![]);
    assert!(!mirror.is_heard() && mirror.get(&key(0)).is_some());
    let gone = mirror.sweep(Duration::from_secs(310));
    assert!(matches!(
        gone[..],
        [
            Change::Removed(_, Departure::Unheard),
            Change::Removed(_, Departure::Unheard)
        ]
    ));
    assert!(!mirror.resumed(), "there is nothing to go on from");
}

#[test]
fn who_is_missing_is_gone_unless_the_registry_was_started_anew() {
    for (is_same_life, left) in [(true, 0), (false, 1)] {
        let mut mirror = heard(BOUNDS, 0..1);
        mirror.begin();
        let gone = mirror.end(is_same_life, Duration::from_secs(5));
        assert_eq!(usize::from(mirror.get(&key(0)).is_some()), left);
        assert_eq!(gone.len() + left, 1);
        assert_eq!(mirror.sweep(Duration::from_secs(304)), vec![]);
        assert_eq!(mirror.sweep(Duration::from_secs(305)).len(), left);
    }
    // One that registers again in time stays.
    let mut mirror = heard(BOUNDS, 0..1);
    mirror.begin();
    mirror.end(false, Duration::ZERO);
    mirror.is_there(instance(0, 2, 0));
    assert_eq!(mirror.sweep(GRACE * 2), vec![]);
}

#[test]
fn what_does_not_fit_is_left_out_and_asked_for_when_there_is_room() {
    let mut mirror = heard(Bounds { most: 4, ..BOUNDS }, 0..NUMBERS);
    assert_eq!(mirror.left_out(), 2);
    assert!(!mirror.wants_resync());
    assert_eq!(
        mirror.said(Said {
            key: key(5),
            epoch: 1,
            report: report(3),
            heard_at: Timestamp::UNIX_EPOCH,
        }),
        None
    );
    mirror.left(key(0), Departure::Expired);
    assert!(!mirror.wants_resync(), "not for each");
    mirror.left(key(1), Departure::Expired);
    assert!(mirror.wants_resync());
}

#[test]
fn a_card_is_kept_once_however_often_it_comes() {
    let mut mirror = Mirror::new(BOUNDS, Duration::ZERO);
    // The same agent, each off the wire by itself.
    for number in [0, 3] {
        mirror.is_there(instance(number, 1, 0));
    }
    let card = |number| Arc::as_ptr(&mirror.get(&key(number)).unwrap().profile.card);
    assert_eq!(card(0), card(3));
}
