//! What a watcher is sent: the snapshot in pieces, and each change as small as the watcher understands.
//!
//! A fleet of a hundred thousand instances does not fit into one message, and their cards, which are most of it, are the
//! same for all instances of one version. So a piece is bounded in instances and in bytes, and holds each card once.
//! Watchers that do not say that they understand pieces get one message, as all did before.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use muster_api::registry::watch_agents_response::{Change as Told, Removal, Report, Resumption, Snapshot};
use muster_api::registry::{InstanceStatus, RemovalReason, WatchAgentsResponse};
use muster_api::time;
use prost::Message as _;
use uuid::Uuid;

use crate::instance::{Instance, wire};
use crate::lease::{Change, Departure, Event};
use crate::store::{Error, Watch};

/// Most instances of one piece.
const PIECE_INSTANCES: usize = 1_000;
/// Bytes from which on a piece takes no more. The instance that crosses it, with its card, is the last.
const PIECE_BYTES: usize = 1 << 20;

/// What a watcher understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One snapshot, and whole instances.
    Whole,
    /// Pieces, and changes without what has not changed.
    Incremental,
}

/// Everything that the watcher is told, in order.
pub fn responses(watch: Watch, form: Form) -> BoxStream<'static, Result<WatchAgentsResponse, Error>> {
    let opening = Opening {
        incarnation: watch.incarnation,
        revision: watch.revision,
    };
    let changes = watch.events.map(move |event| {
        event.map(|event| match form {
            Form::Whole => event.whole().into(),
            Form::Incremental => event.into(),
        })
    });
    let first = match (watch.snapshot, form) {
        (None, _) => stream::iter([opening.with(Told::Resumed(Resumption {}))]).left_stream(),
        (Some(instances), Form::Whole) => {
            let snapshot = Snapshot {
                instances: instances.iter().map(Into::into).collect(),
                ..Snapshot::default()
            };
            stream::iter([opening.with(Told::Snapshot(snapshot))]).left_stream()
        }
        (Some(instances), Form::Incremental) => {
            let pieces = Pieces::new(instances).map(move |piece| opening.with(Told::Snapshot(piece)));
            stream::iter(pieces).right_stream()
        }
    };
    first.map(Ok).chain(changes).boxed()
}

/// What the first answers of a stream have in common.
#[derive(Clone, Copy)]
struct Opening {
    incarnation: Uuid,
    revision: u64,
}

impl Opening {
    fn with(self, change: Told) -> WatchAgentsResponse {
        WatchAgentsResponse {
            revision: self.revision,
            change: Some(change),
            incarnation: self.incarnation.to_string(),
        }
    }
}

/// A snapshot in pieces, each made when it is sent: at least one, however few instances there are.
pub struct Pieces {
    instances: std::iter::Peekable<std::vec::IntoIter<Instance>>,
    begun: bool,
    ended: bool,
}

impl Pieces {
    /// Of these instances. Those that share a card should stand beside each other.
    #[must_use]
    pub fn new(instances: Vec<Instance>) -> Self {
        Self {
            instances: instances.into_iter().peekable(),
            begun: false,
            ended: false,
        }
    }
}

impl Iterator for Pieces {
    type Item = Snapshot;

    fn next(&mut self) -> Option<Snapshot> {
        if self.ended {
            return None;
        }
        let mut piece = Snapshot {
            continues: self.begun,
            ..Snapshot::default()
        };
        let mut places = HashMap::new();
        let mut bytes = 0;
        while piece.instances.len() < PIECE_INSTANCES
            && bytes < PIECE_BYTES
            && let Some(instance) = self.instances.next()
        {
            let card = &instance.profile.card;
            // All instances were held at once when the snapshot was taken: one address is one card.
            let place = *places.entry(Arc::as_ptr(card)).or_insert_with(|| {
                bytes += card.encoded_len();
                piece.cards.push(card.message().clone());
                piece.cards.len() - 1
            });
            let message = wire::without_card(&instance);
            bytes += message.encoded_len();
            piece.instances.push(message);
            piece.card_indexes.push(u32::try_from(place).unwrap_or(u32::MAX));
        }
        self.begun = true;
        piece.more = self.instances.peek().is_some();
        self.ended = !piece.more;
        Some(piece)
    }
}

impl Event {
    /// The same for those who do not know reports.
    fn whole(self) -> Self {
        let change = match self.change {
            Change::Upserted(instance) | Change::Reported(instance) => Change::Upserted(instance),
            Change::Removed(key, departure) => Change::Removed(key, departure),
        };
        Self { change, ..self }
    }
}

impl From<Event> for WatchAgentsResponse {
    fn from(event: Event) -> Self {
        let change = match event.change {
            Change::Upserted(instance) => Told::Upserted((&instance).into()),
            Change::Reported(instance) => Told::Reported((&instance).into()),
            Change::Removed(key, departure) => {
                let reason = match departure {
                    Departure::Deregistered => RemovalReason::Deregistered,
                    Departure::Expired => RemovalReason::Expired,
                    Departure::Unheard => RemovalReason::Unheard,
                };
                Told::Removed(Removal {
                    namespace: key.namespace.to_string(),
                    agent_id: key.agent_id.to_string(),
                    instance_id: key.instance_id.to_string(),
                    reason: reason.into(),
                })
            }
        };
        Self {
            revision: event.revision,
            change: Some(change),
            incarnation: String::new(),
        }
    }
}

impl From<&Instance> for Report {
    fn from(instance: &Instance) -> Self {
        let (key, report) = (instance.key(), &instance.report);
        Self {
            namespace: key.namespace.to_string(),
            agent_id: key.agent_id.to_string(),
            instance_id: key.instance_id.to_string(),
            epoch: instance.epoch,
            status: InstanceStatus::from(report.status).into(),
            load: report.load.get(),
            mean_latency_seconds: wire::seconds(report.mean_latency),
            last_heartbeat_at: Some(time::to_proto(instance.last_heartbeat_at)),
            succeeded_total: report.succeeded,
            failed_total: report.failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_api::a2a::{AgentCard, AgentSkill};
    use muster_api::registry;
    use proptest::prelude::*;

    use super::*;
    use crate::instance::Card;

    /// Instances that share a card by so many, each with a description of that length.
    fn instances(count: u128, sharing: u128, description: usize) -> Vec<Instance> {
        let mut card = Arc::new(Card::new(AgentCard::default()));
        (0..count)
            .map(|number| {
                if number % sharing == 0 {
                    card = Arc::new(Card::new(AgentCard {
                        name: format!("agent {number}"),
                        description: "d".repeat(description),
                        skills: vec![AgentSkill {
                            id: "s".to_owned(),
                            ..AgentSkill::default()
                        }],
                        ..AgentCard::default()
                    }));
                }
                let message = registry::Instance {
                    agent_id: format!("a{}", number / sharing),
                    card: Some(card.message().clone()),
                    endpoint: "http://127.0.0.1:1".to_owned(),
                    ..registry::Instance::default()
                };
                let (mut profile, report) = wire::registration(message, Uuid::from_u128(number + 1)).unwrap();
                profile.card = Arc::clone(&card);
                Instance {
                    profile: Arc::new(profile),
                    report,
                    registered_at: jiff::Timestamp::UNIX_EPOCH,
                    last_heartbeat_at: jiff::Timestamp::UNIX_EPOCH,
                    epoch: 1,
                }
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn pieces_are_bounded_and_together_the_whole(
            count in 0_u128..2_500, sharing in 1_u128..20, description in 0_usize..4_000,
        ) {
            let all = instances(count, sharing, description);
            let pieces: Vec<Snapshot> = Pieces::new(all.clone()).collect();
            prop_assert!(!pieces.is_empty());
            let mut joined = Vec::new();
            for (index, piece) in pieces.iter().enumerate() {
                prop_assert_eq!(piece.continues, index > 0);
                prop_assert_eq!(piece.more, index + 1 < pieces.len());
                prop_assert!(piece.instances.len() <= PIECE_INSTANCES);
                prop_assert!(piece.encoded_len() < PIECE_BYTES + (128 << 10), "{} bytes", piece.encoded_len());
                for (instance, place) in piece.instances.iter().zip(&piece.card_indexes) {
                    let card = piece.cards[*place as usize].clone();
                    joined.push(registry::Instance { card: Some(card), ..instance.clone() });
                }
            }
            let expected: Vec<registry::Instance> = all.iter().map(Into::into).collect();
            prop_assert!(joined == expected);
        }
    }
}
