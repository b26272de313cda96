//! Who waits for whom, and who is next: pure.
//!
//! Calls for the same agents stand in one line, so that those for a slow agent keep nobody else waiting. In a line the more
//! urgent go first and equals in the order in which they came; who waits for long becomes more urgent, a step for each time
//! of [`Bounds::ageing`], so that nobody waits for ever. A place that comes free at an instance goes to the best of all
//! who could use it, in whatever line.
//!
//! Among equals callers take turns: each call has a turn in its line, one after that of its caller's last one there and no earlier
//! than the next to be served (self-clocked fair queueing). So a caller with a hundred calls in line keeps another one
//! with a single call waiting for one call, not for a hundred; and of what has to be refused, the last in turn goes first.
//!
//! A line is for bursts. One that has not been empty for the time of [`Bounds::burst`] (or of four answers) comes of more work
//! than is done, and however long it is, it only makes everybody wait: from then on it is cut to what is answered in a quarter of the
//! time of an answer, the last of the least urgent first, and stays so short until nobody had to be refused for that
//! time. What is let in is answered nearly as fast as without a line.
//!
//! All lines together are bounded, too: a call that comes to full ones takes the place of the newest of the least urgent, if
//! that is less urgent than itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::priority::Priority;

/// How many answers long a line may be before it counts as standing.
const ANSWERS_OF_BURST: f64 = 4.0;

/// What part of an answer's time a call may wait in a line that stands, and seconds that it always may.
const PART_OF_ANSWER: f64 = 0.25;
const SHORT_WAIT: f64 = 0.004;

/// The range of what a refused call hears about when to come again.
const SOONEST: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(30);

/// What holds for all lines.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Calls that may wait, all lines together.
    pub waiting: usize,
    /// How long a line may stand at least before it is cut.
    pub burst: Duration,
    /// After which time of waiting a call is a step more urgent.
    pub ageing: Duration,
}

/// How fast those for whom a line waits answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Answers a second, with all places taken.
    pub per_second: f64,
    /// Seconds to an answer.
    pub answer: f64,
}

impl Pace {
    /// How many may wait in a line that stands.
    fn short(self) -> usize {
        let wait = (self.answer * PART_OF_ANSWER).max(SHORT_WAIT);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "what is no number or too large ends at a bound"
        )]
        let length = (self.per_second * wait).ceil().max(1.0) as usize;
        length
    }

    /// When a line of that length will have moved on.
    fn until_moved(self, waiting: usize) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
        let seconds = waiting as f64 / self.per_second;
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(LATEST)
            .clamp(SOONEST, LATEST)
    }
}

/// Why a call may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// So many wait in all lines, as many as may.
    Full(usize),
    /// More comes than is done: so many wait in this line, and it may move within that time.
    Overloaded(usize, Duration),
}

/// A line for one set of agents.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Whom the line is for: what every instance that can take its calls is found under, such as its agent's id.
    pub whom: Arc<str>,
    /// What else they must have; empty for nothing.
    pub also: Arc<str>,
    /// Whether they must answer in streams, which not all do who are found under the same name.
    pub streams: bool,
}

/// Whose a call is, and how urgent.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'c> {
    /// Who calls.
    pub caller: &'c Arc<str>,
    /// How urgent it is.
    pub priority: Priority,
}

/// Where a call waits; never given twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    name: Arc<Name>,
    priority: Priority,
    turn: Turn,
}

/// When a call is served among its equals: in which round, and which of those of a round.
type Turn = (u64, u64);

/// Rounds of callers that are remembered beyond one for each that waits.
const SPARE_ROUNDS: usize = 64;

/// All lines. `T` is a call that waits.
#[derive(Debug)]
pub struct Lines<T> {
    bounds: Bounds,
    next: u64,
    waiting: usize,
    /// Lines by what their instances are found under.
    lines: HashMap<Arc<str>, BTreeMap<Arc<Name>, Line<T>>>,
    /// Whose line a call is in, by priority and in the order in which they came.
    all: [BTreeMap<u64, (Arc<Name>, Turn)>; 4],
}

#[derive(Debug)]
struct Line<T> {
    steps: [BTreeMap<Turn, Entry<T>>; 4],
    /// The round that was served last.
    round: u64,
    /// The rounds of each caller's last call.
    rounds: HashMap<Arc<str>, u64>,
    /// When it was last empty.
    empty_at: Duration,
    /// Until when it is kept short.
    short_until: Option<Duration>,
}

#[derive(Debug)]
struct Entry<T> {
    since: Duration,
    call: T,
}

impl<T> Line<T> {
    fn new(now: Duration) -> Self {
        Self {
            steps: [BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new()],
            round: 0,
            rounds: HashMap::new(),
            empty_at: now,
            short_until: None,
        }
    }

    fn len(&self) -> usize {
        self.steps.iter().map(BTreeMap::len).sum()
    }

    fn is_empty(&self) -> bool {
        self.steps.iter().all(BTreeMap::is_empty)
    }

    /// Who is next: how urgent by now, and which.
    fn head(&self, ageing: Duration, now: Duration) -> Option<(Rank, Priority)> {
        let heads = Priority::ALL.into_iter().filter_map(|priority| {
            let (&turn, entry) = self.steps[priority.rank()].first_key_value()?;
            let waited = now.saturating_sub(entry.since);
            let aged = waited.as_nanos() / ageing.as_nanos().max(1);
            let urgency = priority.rank() as u128 + aged;
            Some((Rank { urgency, turn }, priority))
        });
        heads.max_by_key(|(rank, _)| *rank)
    }

    /// Who is last: the least urgent whose turn comes last.
    fn last(&self) -> Option<(Priority, Turn)> {
        Priority::ALL.into_iter().find_map(|priority| {
            let (turn, _) = self.steps[priority.rank()].last_key_value()?;
            Some((priority, *turn))
        })
    }

    /// The round in which a caller's next call is served.
    fn round_of(&self, caller: &str) -> u64 {
        let last = self.rounds.get(caller).copied().unwrap_or_default();
        last.max(self.round) + 1
    }

    fn insert(&mut self, caller: &Arc<str>, priority: Priority, number: u64, entry: Entry<T>) -> Turn {
        let turn = (self.round_of(caller), number);
        if self.rounds.len() > self.len() + SPARE_ROUNDS {
            let served = self.round;
            self.rounds.retain(|_, round| *round > served);
        }
        self.rounds.insert(Arc::clone(caller), turn.0);
        self.steps[priority.rank()].insert(turn, entry);
        turn
    }
}

/// Higher goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rank {
    urgency: u128,
    turn: Turn,
}

impl Ord for Rank {
    /// Turns of different lines say nothing about each other, so there who came first goes first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let came = other.turn.1.cmp(&self.turn.1);
        self.urgency.cmp(&other.urgency).then(came)
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A call that may not wait, or no longer, and why.
pub type Turned<T> = (T, Refused);

impl<T> Lines<T> {
    /// Nobody waits.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            next: 0,
            waiting: 0,
            lines: HashMap::new(),
            all: [BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new()],
        }
    }

    /// How many wait.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many wait, by whom they wait for.
    #[must_use]
    pub fn by_target(&self) -> Vec<(Arc<str>, usize)> {
        let sums = self.lines.iter().map(|(whom, lines)| {
            let waiting: usize = lines.values().map(Line::len).sum();
            (Arc::clone(whom), waiting)
        });
        sums.filter(|(_, waiting)| *waiting > 0).collect()
    }

    /// Whether anybody waits in this line.
    #[must_use]
    pub fn has(&self, name: &Name) -> bool {
        self.line(name).is_some_and(|line| !line.is_empty())
    }

    /// A call joins a line, unless it has to be refused. Those who lose their place by it are returned with the reason.
    ///
    /// # Errors
    /// When it may not wait.
    pub fn join(
        &mut self,
        name: &Arc<Name>,
        whose: Whose<'_>,
        pace: Option<Pace>,
        call: T,
        now: Duration,
    ) -> Result<(Position, Vec<Turned<T>>), Turned<T>> {
        let priority = whose.priority;
        let mut displaced = Vec::new();
        if let Some((length, pace)) = self.cut_to(name, pace, now) {
            let waiting = self.line(name).map_or(0, Line::len);
            let refused = Refused::Overloaded(waiting, pace.until_moved(waiting));
            let is_before_the_last = self.line(name).is_some_and(|line| {
                line.last().is_some_and(|(least, (round, _))| {
                    least < priority || (least == priority && line.round_of(whose.caller) < round)
                })
            });
            if waiting >= length && !is_before_the_last {
                return Err((call, refused));
            }
            // The new one stands in it, too.
            let excess = (waiting + 1).saturating_sub(length);
            displaced.extend((0..excess).filter_map(|_| Some((self.last_in(name)?, refused))));
        }
        if self.waiting >= self.bounds.waiting {
            let refused = Refused::Full(self.waiting);
            match self.newest_below(priority) {
                Some(other) => displaced.push((other, refused)),
                None => return Err((call, refused)),
            }
        }
        let number = self.next;
        self.next += 1;
        self.waiting += 1;
        let line = self
            .lines
            .entry(Arc::clone(&name.whom))
            .or_default()
            .entry(Arc::clone(name))
            .or_insert_with(|| Line::new(now));
        if line.is_empty() {
            line.empty_at = now;
        }
        let turn = line.insert(whose.caller, priority, number, Entry { since: now, call });
        self.all[priority.rank()].insert(number, (Arc::clone(name), turn));
        let position = Position {
            name: Arc::clone(name),
            priority,
            turn,
        };
        Ok((position, displaced))
    }

    /// Takes out the call at a position because it is served; `None` when it is not there any more.
    pub fn serve(&mut self, position: &Position) -> Option<T> {
        self.take(&position.name, position.priority, position.turn, true)
    }

    /// Takes out a call that no longer wants to wait; `None` when it is not there any more.
    pub fn leave(&mut self, position: &Position) -> Option<T> {
        self.take(&position.name, position.priority, position.turn, false)
    }

    /// Takes out who is next of all who wait for an instance that is found under `found_under` and that `fits`.
    pub fn next_for<'a>(
        &mut self,
        found_under: impl IntoIterator<Item = &'a str>,
        fits: impl Fn(&Name) -> bool,
        now: Duration,
    ) -> Option<T> {
        let mut best: Option<(Rank, Priority, Arc<Name>)> = None;
        for whom in found_under {
            let Some(lines) = self.lines.get(whom) else {
                continue;
            };
            for (name, line) in lines.iter().filter(|(name, _)| fits(name)) {
                if let Some((rank, priority)) = line.head(self.bounds.ageing, now)
                    && best.as_ref().is_none_or(|(other, _, _)| rank > *other)
                {
                    best = Some((rank, priority, Arc::clone(name)));
                }
            }
        }
        let (rank, priority, name) = best?;
        self.take(&name, priority, rank.turn, true)
    }

    /// Looks at who is next in a line.
    #[must_use]
    pub fn head(&self, name: &Name, now: Duration) -> Option<(Position, &T)> {
        let (line_name, line) = self.lines.get(&name.whom)?.get_key_value(name)?;
        let (Rank { turn, .. }, priority) = line.head(self.bounds.ageing, now)?;
        let entry = line.steps[priority.rank()].get(&turn)?;
        let position = Position {
            name: Arc::clone(line_name),
            priority,
            turn,
        };
        Some((position, &entry.call))
    }

    /// The lines in which somebody waits. Forgets those that have been empty for long.
    pub fn names(&mut self, now: Duration) -> Vec<Arc<Name>> {
        let mut names = Vec::new();
        self.lines.retain(|_, lines| {
            lines.retain(|name, line| {
                let is_empty = line.is_empty();
                if !is_empty {
                    names.push(Arc::clone(name));
                }
                !is_empty || line.short_until.is_some_and(|until| until > now)
            });
            !lines.is_empty()
        });
        names
    }

    fn line(&self, name: &Name) -> Option<&Line<T>> {
        self.lines.get(&name.whom)?.get(name)
    }

    /// How long a line may be from now on, where it stands. Having to ask for it keeps it short for longer.
    fn cut_to(&mut self, name: &Arc<Name>, pace: Option<Pace>, now: Duration) -> Option<(usize, Pace)> {
        let pace = pace.filter(|pace| pace.per_second > 0.0 && pace.answer.is_finite())?;
        let burst = self.bounds.burst;
        let line = self.lines.get_mut(&name.whom)?.get_mut(name)?;
        let answers = Duration::try_from_secs_f64(pace.answer * ANSWERS_OF_BURST).unwrap_or(Duration::MAX);
        let patience = burst.max(answers);
        let is_short = line.short_until.is_some_and(|until| until > now);
        let stands = !line.is_empty() && now.saturating_sub(line.empty_at) >= patience;
        if !is_short && !stands {
            return None;
        }
        let length = pace.short();
        if line.len() >= length {
            line.short_until = Some(now.saturating_add(patience));
        }
        Some((length, pace))
    }

    fn last_in(&mut self, name: &Arc<Name>) -> Option<T> {
        let (priority, turn) = self.line(name)?.last()?;
        self.take(name, priority, turn, false)
    }

    fn newest_below(&mut self, priority: Priority) -> Option<T> {
        let least = Priority::ALL
            .into_iter()
            .take(priority.rank())
            .find(|priority| !self.all[priority.rank()].is_empty())?;
        let (_, (name, turn)) = self.all[least.rank()].last_key_value()?;
        let (name, turn) = (Arc::clone(name), *turn);
        self.take(&name, least, turn, false)
    }

    fn take(&mut self, name: &Arc<Name>, priority: Priority, turn: Turn, is_served: bool) -> Option<T> {
        let line = self.lines.get_mut(&name.whom)?.get_mut(name)?;
        let entry = line.steps[priority.rank()].remove(&turn)?;
        if is_served {
            line.round = line.round.max(turn.0);
        }
        self.all[priority.rank()].remove(&turn.1);
        self.waiting -= 1;
        Some(entry.call)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Duration = Duration::from_secs(100);
    const SLOW: Pace = Pace {
        per_second: 80.0,
        answer: 0.1,
    };

    fn lines(waiting: usize) -> Lines<u32> {
        Lines::new(Bounds {
            waiting,
            burst: Duration::from_secs(1),
            ageing: Duration::from_secs(10),
        })
    }

    fn name(whom: &str, also: &str) -> Arc<Name> {
        Arc::new(Name {
            whom: whom.into(),
            also: also.into(),
            streams: false,
        })
    }

    fn anybody() -> Arc<str> {
        "anybody".into()
    }

    fn join(lines: &mut Lines<u32>, whom: &str, priority: Priority, call: u32, now: Duration) {
        let caller = &anybody();
        lines
            .join(&name(whom, ""), Whose { caller, priority }, None, call, now)
            .expect("room");
    }

    fn standing(
        lines: &mut Lines<u32>,
        caller: &Arc<str>,
        priority: Priority,
        call: u32,
        now: Duration,
    ) -> Result<Vec<Turned<u32>>, Turned<u32>> {
        let joined = lines.join(&name("a", ""), Whose { caller, priority }, Some(SLOW), call, now);
        joined.map(|(_, displaced)| displaced)
    }

    fn order(lines: &mut Lines<u32>, found_under: &[&str], now: Duration) -> Vec<u32> {
        std::iter::from_fn(|| lines.next_for(found_under.iter().copied(), |_| true, now)).collect()
    }

    #[test]
    fn the_urgent_go_first_and_equals_in_order() {
        let mut lines = lines(10);
        for (priority, call) in [
            (Priority::Normal, 1),
            (Priority::Low, 2),
            (Priority::Urgent, 3),
            (Priority::Normal, 4),
        ] {
            join(&mut lines, "a", priority, call, START);
        }
        assert_eq!(order(&mut lines, &["a"], START), [3, 1, 4, 2]);
    }

    #[test]
    fn who_waits_for_long_becomes_more_urgent() {
        let mut lines = lines(10);
        join(&mut lines, "a", Priority::Low, 1, START);
        let later = START + Duration::from_secs(35);
        join(&mut lines, "a", Priority::High, 2, later);
        join(&mut lines, "a", Priority::Urgent, 3, later);
        assert_eq!(order(&mut lines, &["a"], later), [1, 3, 2]);
    }

    #[test]
    fn an_instance_serves_all_lines_that_it_fits_and_no_other() {
        let mut lines = lines(10);
        join(&mut lines, "weather", Priority::Normal, 1, START);
        join(&mut lines, "skill:forecast", Priority::High, 2, START);
        join(&mut lines, "other", Priority::Urgent, 3, START);
        let (caller, priority) = (&anybody(), Priority::Urgent);
        lines
            .join(
                &name("weather", "maps"),
                Whose { caller, priority },
                None,
                4,
                START,
            )
            .unwrap();
        let mine = ["weather", "skill:forecast"];
        let next = |lines: &mut Lines<u32>| lines.next_for(mine, |name| name.also.is_empty(), START);
        assert_eq!(next(&mut lines), Some(2));
        assert_eq!(next(&mut lines), Some(1));
        assert_eq!(next(&mut lines), None);
        assert_eq!(lines.waiting(), 2);
    }

    #[test]
    fn full_lines_give_up_the_newest_of_the_least_urgent_wherever_it_waits() {
        let mut lines = lines(3);
        join(&mut lines, "a", Priority::Low, 1, START);
        join(&mut lines, "b", Priority::Low, 2, START);
        join(&mut lines, "a", Priority::High, 3, START);
        let caller = &anybody();
        let into_c = |lines: &mut Lines<u32>, priority, call| {
            lines.join(&name("c", ""), Whose { caller, priority }, None, call, START)
        };
        let refused = into_c(&mut lines, Priority::Low, 4);
        assert_eq!(refused, Err((4, Refused::Full(3))));
        let (_, displaced) = into_c(&mut lines, Priority::Normal, 5).unwrap();
        assert_eq!(displaced, [(2, Refused::Full(3))]);
        assert_eq!(order(&mut lines, &["a", "b", "c"], START), [3, 5, 1]);
    }

    #[test]
    fn a_burst_may_be_long_and_a_line_that_stands_is_cut() {
        let mut lines = lines(1000);
        let caller = anybody();
        for call in 0..100 {
            standing(&mut lines, &caller, Priority::Normal, call, START).unwrap();
        }
        let later = START + Duration::from_secs(2);
        // In a quarter of the time of an answer two are answered.
        let displaced = standing(&mut lines, &caller, Priority::Urgent, 100, later).unwrap();
        assert_eq!(displaced.len(), 99);
        assert_eq!(displaced[0].0, 99, "the newest first");
        let refused = standing(&mut lines, &caller, Priority::Normal, 101, later);
        let Err((_, Refused::Overloaded(2, again))) = refused else {
            panic!("let in");
        };
        assert!(again >= SOONEST);
        assert_eq!(order(&mut lines, &["a"], later), [100, 0]);
        // It stays short though it was empty, until nobody was refused for a while.
        let soon = later + Duration::from_millis(500);
        let taken = |lines: &mut Lines<u32>, now| {
            let outcomes = (0..10).map(|call| standing(lines, &caller, Priority::Normal, call, now));
            outcomes.filter(Result::is_ok).count()
        };
        assert_eq!(taken(&mut lines, soon), 2);
        assert_eq!(order(&mut lines, &["a"], soon).len(), 2);
        assert_eq!(taken(&mut lines, soon + Duration::from_secs(5)), 10);
    }

    #[test]
    fn callers_take_turns_and_a_quiet_one_is_let_in_before_a_noisy_one() {
        let mut lines = lines(1000);
        let (noisy, quiet): (Arc<str>, Arc<str>) = ("noisy".into(), "quiet".into());
        for call in 0..6 {
            standing(&mut lines, &noisy, Priority::Normal, call, START).unwrap();
        }
        for call in [10, 11] {
            standing(&mut lines, &quiet, Priority::Normal, call, START).unwrap();
        }
        let served = order(&mut lines, &["a"], START);
        assert_eq!(served, [0, 10, 1, 11, 2, 3, 4, 5]);
        for call in 0..6 {
            standing(&mut lines, &noisy, Priority::Normal, call, START).unwrap();
        }
        let later = START + Duration::from_secs(2);
        assert!(standing(&mut lines, &noisy, Priority::Normal, 6, later).is_err());
        let displaced = standing(&mut lines, &quiet, Priority::Normal, 10, later).unwrap();
        assert_eq!(
            displaced.iter().map(|(call, _)| *call).collect::<Vec<_>>(),
            [5, 4, 3, 2, 1]
        );
        assert_eq!(order(&mut lines, &["a"], later), [0, 10]);
    }

    #[test]
    fn lines_that_are_empty_are_forgotten() {
        let mut lines = lines(10);
        join(&mut lines, "a", Priority::Normal, 1, START);
        assert_eq!(lines.names(START), [name("a", "")]);
        assert_eq!(order(&mut lines, &["a"], START), [1]);
        assert_eq!(lines.names(START), []);
        assert!(lines.lines.is_empty());
    }

    proptest! {
        #[test]
        fn they_are_bounded_and_lose_nobody(
            most in 0usize..8,
            steps in proptest::collection::vec((0u8..4, 0usize..4, 0usize..3, 0u64..3000), 0..200),
        ) {
            let mut lines = lines(most);
            let mut now = START;
            let mut positions = Vec::new();
            let (mut joined, mut out) = (0u32, 0u32);
            for (action, rank, line, later) in steps {
                now += Duration::from_millis(later);
                let whom = ["a", "b", "c"][line];
                match action {
                    0 | 1 => {
                        let pace = (action == 1).then_some(SLOW);
                        let caller = &Arc::from(["x", "y", "z"][(later % 3) as usize]);
                        let whose = Whose { caller, priority: Priority::ALL[rank] };
                        let outcome = lines.join(&name(whom, ""), whose, pace, joined, now);
                        if let Ok((position, displaced)) = outcome {
                            positions.push(position);
                            joined += 1;
                            out += u32::try_from(displaced.len()).unwrap();
                        }
                    }
                    2 if !positions.is_empty() => {
                        let position = &positions[rank % positions.len()];
                        out += u32::from(lines.leave(position).is_some());
                    }
                    _ => out += u32::from(lines.next_for([whom], |_| true, now).is_some()),
                }
                prop_assert!(lines.waiting() <= most);
                prop_assert_eq!(joined, out + u32::try_from(lines.waiting()).unwrap());
                prop_assert_eq!(lines.all.iter().map(BTreeMap::len).sum::<usize>(), lines.waiting());
            }
            let left = order(&mut lines, &["a", "b", "c"], now).len();
            prop_assert_eq!(joined, out + u32::try_from(left).unwrap());
            prop_assert_eq!(lines.waiting(), 0);
        }
    }
}
