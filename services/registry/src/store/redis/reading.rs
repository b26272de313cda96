//! Reading the store: how far it is, its feed, and all of it.
//!
//! All of it is read in pieces while others write, so that Redis never stops for it. What the pieces have missed or seen too early
//! is made good by the changes in the feed since before the first piece: a change that is applied to what has seen it already
//! is followed by every later one, and the result is exactly the store at the last of them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use muster_store::redis::{Connection, Value, cmd};
use uuid::Uuid;

use super::mirror::{Astray, LeaseTime, Mirror, Place, check, is_behind};
use super::wire::{self, Entry};
use super::{Answer, LONGEST_TICK, Redis, milliseconds, not_understood, scripts, unavailable};
use crate::lease::Table;
use crate::store::Error;

/// About how many entries come in a piece. Each may have a card of 64 KiB.
const PIECE: u64 = 100;
/// Most changes that are read at once.
pub(super) const CHANGES: u64 = 1_000;
/// Most heartbeats of which the times are read at once.
const HEARD: u64 = 10_000;
/// The version of keys and values that is understood.
pub(super) const FORMAT: &str = "1";
/// How often reading everything is begun anew because Redis changed meanwhile in ways that the feed does not tell.
const TRIES: usize = 5;

/// How far the store is.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) format: String,
    pub(super) place: Place,
    expired: u64,
    pub(super) time: Duration,
    /// How far Redis's clock is ahead of lease time.
    lag: SignedDuration,
    /// Leases that were renewed since, with their deadlines.
    heard: Vec<(Uuid, u64)>,
}

impl Head {
    /// When leases were renewed, on Redis's clock, and the latest deadline among them.
    pub(super) fn renewals(&self, time_to_live: Duration) -> (Vec<(Uuid, Timestamp)>, Option<u64>) {
        let time_to_live = SignedDuration::try_from(time_to_live).unwrap_or(SignedDuration::MAX);
        let since_epoch = self.lag.saturating_sub(time_to_live);
        let at = |deadline: u64| {
            let deadline = SignedDuration::from_millis(i64::try_from(deadline).unwrap_or(i64::MAX));
            Timestamp::UNIX_EPOCH
                .checked_add(deadline.saturating_add(since_epoch))
                .ok()
        };
        let heard = self.heard.iter();
        let renewals = heard
            .clone()
            .filter_map(|(lease, deadline)| Some((*lease, at(*deadline)?)));
        (renewals.collect(), heard.map(|(_, deadline)| *deadline).max())
    }
}

impl Redis {
    /// How far the store is; `None` if there is none. Names leases whose deadlines are after the given one, in milliseconds.
    pub(super) async fn look(&self, since: Option<u64>) -> Result<Option<Head>, Error> {
        let keys = &self.shared.keys;
        let call = scripts::LOOK
            .call()
            .key(keys.state())
            .key(keys.deadlines())
            .arg(since.map(|since| since.to_string()).unwrap_or_default())
            .number(HEARD)
            .number(milliseconds(LONGEST_TICK));
        let words: Vec<String> = self.call(&call).await?;
        if words.is_empty() {
            return Ok(None);
        }
        let mut answer = Answer(words.into_iter());
        let format = answer.text()?;
        let (incarnation, revision, token) = (answer.incarnation()?, answer.number()?, answer.text()?);
        let (expired, time, lag) = (answer.number()?, answer.number()?, answer.text()?);
        let lag = lag.parse::<i64>().map_err(|_| not_understood(&lag))?;
        let rest: Vec<String> = answer.0.collect();
        let (pairs, _) = rest.as_chunks::<2>();
        let heard = pairs
            .iter()
            .filter_map(|[lease, deadline]| Some((Uuid::try_parse(lease).ok()?, deadline.parse().ok()?)));
        Ok(Some(Head {
            format,
            place: Place {
                incarnation,
                revision,
                token,
            },
            expired,
            time: Duration::from_millis(time),
            lag: SignedDuration::from_millis(lag),
            heard: heard.collect(),
        }))
    }

    /// The changes after a revision; waits for the first of them for so long.
    pub(super) async fn wait_for_changes(&self, revision: u64, wait: Duration) -> Result<Changes, Error> {
        let mut command = cmd("XREAD");
        command
            .arg("COUNT")
            .arg(CHANGES)
            .arg("BLOCK")
            .arg(milliseconds(wait))
            .arg("STREAMS")
            .arg(self.shared.keys.feed())
            .arg(format!("{revision}-0"));
        let answer = run(&self.shared.feed, &command).await?;
        Ok(wire::only_stream(answer)
            .and_then(wire::entries)
            .map_err(|error| Astray::Unreadable(error.to_string())))
    }

    /// The changes after a revision that are there now.
    async fn changes(&self, revision: u64) -> Result<Changes, Error> {
        let mut command = cmd("XRANGE");
        command
            .arg(self.shared.keys.feed())
            .arg(format!("({revision}-0"))
            .arg("+")
            .arg("COUNT")
            .arg(CHANGES);
        let answer = run(&self.shared.connection, &command).await?;
        Ok(wire::entries(answer).map_err(|error| Astray::Unreadable(error.to_string())))
    }

    /// Reads everything, and makes the store if there is none. Where the store has forgotten changes that `known` names, it goes
    /// on as another incarnation from here.
    pub(super) async fn read_all(&self, known: Option<&Place>) -> Result<Mirror, Error> {
        let mut last = None;
        for _ in 0..TRIES {
            match self.try_to_read_all(known).await? {
                Ok(mirror) => return Ok(mirror),
                Err(astray) => {
                    tracing::debug!(%astray, "Redis changed while it was read");
                    last = Some(astray);
                }
            }
        }
        let why = last.map(|astray| astray.to_string()).unwrap_or_default();
        Err(Error::Unavailable(format!(
            "Redis cannot be read whole, {TRIES} times over: {why}"
        )))
    }

    async fn try_to_read_all(&self, known: Option<&Place>) -> Result<Result<Mirror, Astray>, Error> {
        let Some(head) = self.look(None).await? else {
            let _made: Vec<String> = self.call(&self.writing(&scripts::EXPIRE)).await?;
            return Ok(Err(Astray::Renewed));
        };
        if head.format != FORMAT {
            return Err(not_understood(&format!("format '{}'", head.format)));
        }
        if let Some(known) = known.filter(|known| is_behind(known, &head.place)) {
            let call = self
                .writing(&scripts::RAISE)
                .arg(head.place.incarnation.to_string())
                .number(known.revision)
                .arg(known.token.as_str());
            let _raised: i64 = self.call(&call).await?;
            return Ok(Err(Astray::Diverged {
                revision: head.place.revision,
            }));
        }
        let mut table = Table::new(self.shared.options.terms, head.place.revision);
        table.restore_expired(head.expired);
        self.read_entries(&mut table).await?;
        self.read_offline(&mut table).await?;
        let time = LeaseTime {
            said: head.time,
            heard_at: self.shared.clock.monotonic(),
        };
        self.catch_up(Mirror::new(table, head.place, time)).await
    }

    /// Applies the changes since the reading began, up to those that there are when it ends.
    async fn catch_up(&self, mut mirror: Mirror) -> Result<Result<Mirror, Astray>, Error> {
        let Some(end) = self.look(None).await? else {
            return Ok(Err(Astray::Renewed));
        };
        if let Err(astray) = check(mirror.place(), &end.place) {
            return Ok(Err(astray));
        }
        while mirror.place().revision < end.place.revision {
            let changes = self.changes(mirror.place().revision).await?;
            let followed = changes.and_then(|entries| {
                if entries.is_empty() {
                    return Err(Astray::Silent {
                        revision: end.place.revision,
                    });
                }
                mirror.follow(entries)
            });
            if let Err(astray) = followed {
                return Ok(Err(astray));
            }
            // Nobody watches yet.
            let _nobodys = mirror.take_events();
        }
        Ok(Ok(mirror))
    }

    async fn read_entries(&self, table: &mut Table) -> Result<(), Error> {
        self.read_hash(self.shared.keys.entries(), |id, value, profile| {
            let (instance, lease) = wire::live(id, value, profile)?;
            table.restore(instance, lease);
            Ok(())
        })
        .await
    }

    async fn read_offline(&self, table: &mut Table) -> Result<(), Error> {
        self.read_hash(self.shared.keys.offline(), |id, value, profile| {
            let (at, instance) = wire::offline(id, value, profile)?;
            table.restore_offline(at, instance);
            Ok(())
        })
        .await
    }

    async fn read_hash(
        &self,
        hash: Vec<u8>,
        mut take: impl FnMut(&str, &[u8], &[u8]) -> Result<(), wire::Unreadable>,
    ) -> Result<(), Error> {
        let mut cursor = b"0".to_vec();
        loop {
            let call = scripts::PAGE
                .call()
                .key(hash.as_slice())
                .key(self.shared.keys.profiles())
                .arg(cursor)
                .number(PIECE);
            let mut piece = self.call::<Vec<Vec<u8>>>(&call).await?.into_iter();
            cursor = piece
                .next()
                .ok_or_else(|| not_understood("a piece without a cursor"))?;
            let words: Vec<Vec<u8>> = piece.collect();
            let (entries, _) = words.as_chunks::<3>();
            for [id, value, profile] in entries {
                // What a newer registry has written and this one does not allow is not shown here.
                if let Err(error) = take(&String::from_utf8_lossy(id), value, profile) {
                    tracing::warn!(%error, "an instance is left out");
                }
            }
            if cursor == b"0" {
                return Ok(());
            }
        }
    }
}

/// Some changes, or what is not understood in their place.
type Changes = Result<Vec<Entry>, Astray>;

async fn run(connection: &Connection, command: &muster_store::redis::Cmd) -> Result<Value, Error> {
    connection.run(command).await.map_err(|error| unavailable(&error))
}
