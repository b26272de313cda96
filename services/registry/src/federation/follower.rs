//! Follows the registry of another region, for as long as this one lives.
//!
//! It asks for that registry's own instances alone, so that nothing goes round in circles, and leaves out any that is marked
//! as being from elsewhere all the same. A stream that ends is taken up where it ended, after a pause that grows; where the
//! other registry no longer knows what was missed, or something is missing on the way, everything is read anew.

use std::sync::Arc;
use std::time::Duration;

use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::watch_agents_response::{Change, Removal, Report, Snapshot};
use muster_api::registry::{self as proto, HeartbeatRequest, RemovalReason, WatchAgentsResponse};
use muster_api::time;
use muster_rpc::backoff::Backoff;
use muster_rpc::following::{Position, Step};
use muster_runtime::trust::identity::Channel;
use tonic::{Status, Streaming};

use super::hub::Hub;
use super::mirror::Said;
use crate::instance::{Card, Error, Instance, Key, Origin, wire};
use crate::lease::Departure;

/// Waits between attempts to reach the registry.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(200), Duration::from_secs(5));
/// How long the registry may take to say that it has begun a stream.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer that is taken; a piece of a snapshot has about 1 MiB.
const MAX_BYTES: usize = 8 << 20;

/// Follows until it is dropped.
pub async fn follow(hub: Arc<Hub>, peer: usize, origin: Arc<Origin>, registry: Channel) {
    let mut client = RegistryServiceClient::new(registry).max_decoding_message_size(MAX_BYTES);
    let mut follower = Follower {
        hub: &hub,
        peer,
        origin: &origin,
        position: Position::default(),
        failures: 0,
        is_lost: false,
    };
    loop {
        let mut request = follower.position.request();
        request.own_only = true;
        let ended = match tokio::time::timeout(PATIENCE, client.watch_agents(request)).await {
            Ok(Ok(stream)) => follower.read(&mut stream.into_inner()).await,
            Ok(Err(status)) => status,
            Err(_) => Status::unavailable(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        follower.position.broke();
        follower.hub.lost(peer, ended.message());
        // An hour's absence is told once.
        if !std::mem::replace(&mut follower.is_lost, true) {
            let (region, error) = (&origin.region, ended.message());
            tracing::warn!(
                region,
                error,
                "the registry of the region is away; its agents are shown for the grace"
            );
        }
        tokio::time::sleep(BACKOFF.delay(follower.failures, rand::random())).await;
        follower.failures = follower.failures.saturating_add(1);
    }
}

struct Follower<'a> {
    hub: &'a Hub,
    peer: usize,
    origin: &'a Arc<Origin>,
    position: Position<Instance>,
    /// Attempts in a row that brought nothing.
    failures: u32,
    is_lost: bool,
}

impl Follower<'_> {
    /// Reads the stream to its end and returns why it ended.
    async fn read(&mut self, stream: &mut Streaming<WatchAgentsResponse>) -> Status {
        let mut unreadable = 0;
        loop {
            let response = match stream.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return Status::unavailable("the stream ended"),
                Err(status) => return status,
            };
            let origin = self.origin;
            let taken = self.position.take(response, |piece, instances| {
                unreadable += read_piece(piece, origin, instances);
            });
            match taken {
                Ok(Step::Piece) => continue,
                Ok(Step::Snapshot {
                    instances,
                    is_same_life,
                }) => {
                    let left_out = std::mem::take(&mut unreadable);
                    if left_out > 0 {
                        let region = &origin.region;
                        tracing::warn!(
                            region,
                            left_out,
                            "the region's registry names instances that cannot be read"
                        );
                    }
                    self.hub
                        .snapshot(self.peer, instances, is_same_life, left_out)
                        .await;
                }
                Ok(Step::Resumed) => {
                    if !self.hub.resumed(self.peer) {
                        self.position.start_over();
                        return Status::data_loss("starting over: what was known was forgotten");
                    }
                }
                Ok(Step::Changed(change)) => self.changed(change.map(|change| *change)),
                Err(gap) => return Status::data_loss(format!("starting over: {gap}")),
            }
            self.failures = 0;
            if std::mem::take(&mut self.is_lost) {
                tracing::info!(
                    region = self.origin.region,
                    "the registry of the region is followed"
                );
            }
            if self.hub.wants_resync(self.peer) {
                self.position.start_over();
                return Status::data_loss("starting over: there is room for what was left out");
            }
        }
    }

    fn changed(&self, change: Option<Change>) {
        let read = match change {
            Some(Change::Upserted(instance)) if instance.origin.is_some() => return,
            Some(Change::Upserted(instance)) => read_instance(instance, None, self.origin).map(|instance| {
                self.hub.told(self.peer, |mirror, _| mirror.is_there(instance));
            }),
            Some(Change::Reported(report)) => said(&report).map(|said| {
                self.hub.told(self.peer, |mirror, _| mirror.said(said));
            }),
            Some(Change::Removed(removal)) => left(&removal).map(|(key, departure)| {
                self.hub.told(self.peer, |mirror, _| mirror.left(key, departure));
            }),
            Some(Change::Snapshot(_) | Change::Resumed(_)) | None => return,
        };
        if let Err(error) = read {
            self.hub.unreadable(self.peer);
            let region = &self.origin.region;
            tracing::debug!(region, %error, "a change of the region cannot be read");
        }
    }
}

/// Adds the instances of a piece that can be read; says how many cannot.
fn read_piece(piece: Snapshot, origin: &Arc<Origin>, into: &mut Vec<Instance>) -> usize {
    let cards = piece.cards.into_iter();
    let cards: Vec<Option<Arc<Card>>> = cards.map(|card| wire::checked_card(card).ok()).collect();
    let mut places = piece.card_indexes.into_iter();
    let mut unreadable = 0;
    for instance in piece.instances {
        let place = places.next().and_then(|place| usize::try_from(place).ok());
        let card = place.and_then(|place| cards.get(place)).and_then(Option::as_ref);
        if instance.origin.is_some() {
            continue;
        }
        match read_instance(instance, card, origin) {
            Ok(instance) => into.push(instance),
            Err(error) => {
                tracing::debug!(region = origin.region, %error, "an instance of the region cannot be read");
                unreadable += 1;
            }
        }
    }
    unreadable
}

/// Reads an instance that has this card, else the one that it brings.
fn read_instance(
    mut instance: proto::Instance,
    card: Option<&Arc<Card>>,
    origin: &Arc<Origin>,
) -> Result<Instance, Error> {
    let card = match (card, instance.card.take()) {
        (Some(card), _) => Arc::clone(card),
        (None, Some(card)) => wire::checked_card(card)?,
        (None, None) => return Err(Error::new("instance.card", "is missing")),
    };
    wire::foreign(instance, &card, origin)
}

fn said(report: &Report) -> Result<Said, Error> {
    let beat = HeartbeatRequest {
        load: report.load,
        status: report.status,
        mean_latency_seconds: report.mean_latency_seconds,
        succeeded_total: report.succeeded_total,
        failed_total: report.failed_total,
        ..HeartbeatRequest::default()
    };
    let heard_at = report.last_heartbeat_at.as_ref().and_then(time::from_proto);
    Ok(Said {
        key: key(&report.namespace, &report.agent_id, &report.instance_id)?,
        epoch: report.epoch,
        report: wire::report(&beat)?,
        heard_at: heard_at.unwrap_or_default(),
    })
}

fn left(removal: &Removal) -> Result<(Key, Departure), Error> {
    let departure = match removal.reason() {
        RemovalReason::Deregistered => Departure::Deregistered,
        RemovalReason::Expired => Departure::Expired,
        RemovalReason::Unspecified | RemovalReason::Unheard => Departure::Unheard,
    };
    let key = key(&removal.namespace, &removal.agent_id, &removal.instance_id)?;
    Ok((key, departure))
}

fn key(namespace: &str, agent_id: &str, instance_id: &str) -> Result<Key, Error> {
    Ok(Key {
        namespace: wire::namespace("namespace", namespace)?,
        agent_id: wire::agent_id("agent_id", agent_id)?,
        instance_id: wire::instance_id("instance_id", instance_id)?,
    })
}
