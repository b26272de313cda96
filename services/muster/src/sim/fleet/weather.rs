//! What happens to the fleet, and when: a function of the seed and of the time, so that nobody has to keep it going.
//!
//! Time is divided into rounds. In a round at most one thing happens to each agent, and it is over well before the round is, so
//! that an agent is never away for longer than the engine waits for one, and a call that is broken off finds somebody else. That
//! is what lets the ends of runs be compared with those of a world in which nothing happens.

use std::time::Duration;

use muster_workflow_engine::simulation::decided;

/// How long a round lasts.
const ROUND: Duration = Duration::from_secs(60);

/// How long an instance that leaves in order takes no new work before it goes.
const DRAIN: Duration = Duration::from_secs(3);

/// What happens to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its process dies: calls break off, and connections are refused.
    Crashes,
    /// Its machine is gone without a word: calls hang, and connections time out.
    Vanishes,
    /// It works on, but the registry hears nothing of it.
    CutOff,
    /// It is replaced in order: takes nothing new, ends what it has, says goodbye.
    Leaves,
    /// As all of its agent are, at once and without notice; what they have is ended.
    AllLeave,
}

/// Something that happens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    instance: usize,
    pub(super) from: Duration,
    pub(super) until: Duration,
}

/// How an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Well,
    /// Well, and about to leave.
    Draining,
    /// Well, and nobody at the registry knows.
    CutOff,
    /// Gone, after it said so.
    Left,
    /// Gone; connections are refused.
    Crashed,
    /// Gone; connections time out.
    Vanished,
}

impl Condition {
    /// Whether it takes calls from whoever knows its address.
    pub(super) const fn is_up(self) -> bool {
        matches!(self, Self::Well | Self::Draining | Self::CutOff)
    }
}

/// How the registry is, as the router and the instances meet it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Registry {
    There,
    /// The router does not reach it; the instances do.
    CutOff,
    /// It is down, and forgets everything.
    Down,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) seed: u64,
    pub(super) is_calm: bool,
}

impl Weather {
    /// How many instances an agent has.
    pub(super) fn instances(self, agent: &str) -> usize {
        2 + usize::from(decided(self.seed, &[&"instances", &agent]).is_multiple_of(2))
    }

    /// How an instance is.
    pub(super) fn condition(self, agent: &str, instance: usize, now: Duration) -> Condition {
        let fault = self.fault(agent, round(now));
        let fault =
            fault.filter(|fault| fault.concerns(instance) && (fault.from..fault.until).contains(&now));
        let Some(fault) = fault else {
            return Condition::Well;
        };
        match fault.kind {
            Kind::Crashes => Condition::Crashed,
            Kind::Vanishes => Condition::Vanished,
            Kind::CutOff => Condition::CutOff,
            Kind::Leaves if now < fault.from + DRAIN => Condition::Draining,
            Kind::Leaves | Kind::AllLeave => Condition::Left,
        }
    }

    /// What ends the work that an instance has at this time, if anything does in the next minutes.
    pub(super) fn death(self, agent: &str, instance: usize, since: Duration) -> Option<Fault> {
        let first = round(since);
        let faults = (first..=first + 2).filter_map(|round| self.fault(agent, round));
        let mut deaths = faults.filter(|fault| {
            fault.concerns(instance)
                && matches!(fault.kind, Kind::Crashes | Kind::Vanishes)
                && fault.from >= since
        });
        deaths.next()
    }

    /// How the registry is.
    pub(super) fn registry(self, now: Duration) -> Registry {
        let round = round(now);
        let chosen = decided(self.seed, &[&"registry", &round]);
        if self.is_calm || !is_for_the_registry(round) || chosen.is_multiple_of(4) {
            return Registry::There;
        }
        let from = begin(round) + Duration::from_millis(5_000 + chosen / 8 % 30_000);
        let until = from + Duration::from_millis(500 + chosen / 8 % 7_500);
        match (from..until).contains(&now) {
            true if chosen.is_multiple_of(2) => Registry::Down,
            true => Registry::CutOff,
            false => Registry::There,
        }
    }

    fn fault(self, agent: &str, round: u64) -> Option<Fault> {
        let chosen = decided(self.seed, &[&"fault", &agent, &round]);
        // In the first round the fleet starts.
        if self.is_calm || round == 0 || chosen % 5 < 2 {
            return None;
        }
        let (kind, most) = match chosen / 5 % 5 {
            0 => (Kind::Crashes, 25_000),
            1 => (Kind::Vanishes, 10_000),
            2 => (Kind::CutOff, 25_000),
            // With the registry away as well it could take longer than the engine waits.
            3 if !is_for_the_registry(round) => (Kind::AllLeave, 8_000),
            _ => (Kind::Leaves, 25_000),
        };
        let from = begin(round) + Duration::from_millis(1_000 + chosen / 25 % 25_000);
        Some(Fault {
            kind,
            instance: usize::try_from(chosen / 7).unwrap_or_default() % self.instances(agent),
            from,
            until: from + Duration::from_millis(200 + chosen / 50 % most),
        })
    }
}

impl Fault {
    fn concerns(&self, instance: usize) -> bool {
        self.kind == Kind::AllLeave || self.instance == instance
    }
}

/// The registry fails in every third round.
const fn is_for_the_registry(round: u64) -> bool {
    round % 3 == 2
}

const fn round(now: Duration) -> u64 {
    now.as_secs() / ROUND.as_secs()
}

fn begin(round: u64) -> Duration {
    Duration::from_secs(round.saturating_mul(ROUND.as_secs()))
}
