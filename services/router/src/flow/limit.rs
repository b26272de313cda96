//! How many messages an instance may have at once: as many as its card says, or as many as it is found to take. Pure.
//!
//! Most agents refuse nothing: what is too much for them waits inside, where no priority and no deadline counts. What can be
//! seen from outside is that answers take longer. So answers are looked at in windows, by their median, which a few
//! long ones do not move. What an answer takes without much company is the *base*, and it is known with how much company that
//! was:
//!
//! - with no more company than that, a median is another sample of the base, be it longer or shorter; with more, it is a new base
//!   where it is far shorter: then calls had waited inside when the old one was found. A base never becomes longer with more
//!   company, or an agent that is always full would be found to take more and more;
//! - with more company, medians above [`TOLERANCE`] times the base, and above [`NEGLIGIBLE`], say that calls wait inside: the
//!   limit becomes what was there, reduced in proportion, to no less than half. It takes two in a row, because the median of a
//!   few answers that differ much is often too long by chance, and limits would shrink by chance alone. Where far less company
//!   changes nothing, nobody had waited: the work has become longer;
//! - while all places are taken, a median below that says that more may be tried: half as much again until it was too much
//!   for the first time, from then on one place more, or a tenth.
//!
//! Where all places are always taken, the base is sought now and then ([`SEEK_EVERY`]): the limit is halved for a window, and
//! again as long as answers become faster by it; where they do not, nobody waited, and that is the base. So neither an
//! overload that was there from the start nor work that has become longer is mistaken for the other for ever.
//!
//! An agent that refuses (RESOURCE_EXHAUSTED) says more than any median: a fifth fewer at once, and slowly more again, up to
//! what its card says; several routers that share an instance find their shares that way.
//!
//! How limits and lines do together under overload is simulated in `simulation.rs`.
//!
//! Rejected: the smallest time ever seen as the base (one cheap question, and every answer after it looks slow), the mean
//! (one answer of a minute among those of a second), a limit on throughput (it says nothing about which throughput is enough).

use std::time::Duration;

use super::lines::Pace;

/// Places of an instance of which nothing is known.
const FIRST: f64 = 64.0;

/// Most places that are learned.
const MOST: f64 = 4096.0;

/// How much longer than the base answers may take.
const TOLERANCE: f64 = 1.25;

/// How much longer than that before all places are taken.
const PATIENT: f64 = 1.2;

/// Seconds below which nobody is kept waiting, whatever the base: what the network and schedulers add by themselves.
const NEGLIGIBLE: f64 = 0.005;

/// Answers and seconds that make a window.
const ANSWERS: usize = 64;
const WINDOW: Duration = Duration::from_millis(100);

/// Answers that are looked at in a window at most.
const LOOKED_AT: usize = 128;

/// How often the base is sought while all places are taken: windows and time, both.
const SEEK_EVERY: (u32, Duration) = (10, Duration::from_secs(30));

/// How much more company there must be than the base was found with, to blame it for longer answers.
const MORE: f64 = 1.25;

/// What halving the limit must do to the median where calls wait inside; a base that is longer than that was none.
const FASTER: f64 = 0.75;

/// How much less company must have made the median shorter where calls waited inside, and from which part on it counts as
/// the same.
const LESS: f64 = 0.6;
const UNMOVED: f64 = 0.9;

/// Weight of the newest window in the base.
const WEIGHT: f64 = 0.3;

/// The limit of one instance.
#[derive(Debug, Clone)]
pub struct Limit {
    places: f64,
    /// What its card says.
    declared: Option<f64>,
    /// Fewer than that, where so many were found to be too many.
    ceiling: Option<f64>,
    base: Option<Base>,
    /// Whether it was too much at some time.
    was_too_much: bool,
    answers: Vec<f64>,
    /// Messages that were there with each answer of this window, summed up.
    company: f64,
    counted: f64,
    since: Duration,
    /// Whether all places were taken at some time in this window.
    was_full: bool,
    /// Answers to calls that began under another limit, which are not looked at.
    stale: u32,
    seeking: Option<Seeking>,
    /// Full windows since the base was found, and when that was.
    full_windows: u32,
    found_at: Duration,
    refused_at: Option<Duration>,
    /// What was seen when the limit was lowered, until the next window.
    reduced: Option<Window>,
    /// Whether the last window was too long.
    is_warned: bool,
}

/// What an answer takes without much company.
#[derive(Debug, Clone, Copy)]
struct Base {
    seconds: f64,
    company: f64,
}

impl Base {
    /// A window may be of other work, or another sample of the same.
    fn after(self, window: Window) -> Self {
        let towards = |from: f64, to: f64, weight: f64| from + weight * (to - from);
        if window.company <= self.company {
            Self {
                seconds: towards(self.seconds, window.median, WEIGHT),
                company: towards(self.company, window.company, WEIGHT),
            }
        } else if window.median < self.seconds * FASTER {
            // Calls waited inside when the base was found.
            Self {
                seconds: window.median,
                company: window.company,
            }
        } else {
            self
        }
    }

    fn tolerated(self) -> f64 {
        (self.seconds * TOLERANCE).max(NEGLIGIBLE)
    }
}

/// What was seen in a window.
#[derive(Debug, Clone, Copy)]
struct Window {
    median: f64,
    /// Mean.
    company: f64,
    was_full: bool,
}

/// The base is sought.
#[derive(Debug, Clone, Copy)]
struct Seeking {
    /// The limit before, and the median under it.
    before: (f64, f64),
    /// The median under the last limit.
    last: f64,
}

impl Limit {
    /// Of an instance whose card says how many it takes, or that has to be found out.
    #[must_use]
    pub fn new(declared: Option<u32>) -> Self {
        let declared = declared.map(|places| f64::from(places.max(1)));
        Self {
            places: declared.unwrap_or(FIRST),
            declared,
            ceiling: None,
            base: None,
            was_too_much: false,
            answers: Vec::new(),
            company: 0.0,
            counted: 0.0,
            since: Duration::ZERO,
            was_full: false,
            stale: 0,
            seeking: None,
            full_windows: 0,
            found_at: Duration::ZERO,
            refused_at: None,
            reduced: None,
            is_warned: false,
        }
    }

    /// How many messages it may have at once; at least one.
    #[must_use]
    pub fn places(&self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 1 to what a card says in 32 bits"
        )]
        let places = self.places.max(1.0) as u32;
        places
    }

    /// Seconds that an answer takes without company, as far as that is known.
    #[must_use]
    pub fn base(&self) -> Option<f64> {
        self.base.map(|base| base.seconds)
    }

    /// How fast it answers with all places taken, as far as that is known.
    #[must_use]
    pub fn pace(&self) -> Option<Pace> {
        let answer = self.base()?;
        Some(Pace {
            per_second: f64::from(self.places()) / answer.max(f64::MIN_POSITIVE),
            answer,
        })
    }

    /// An answer came after that long; with it, `company` messages were there.
    pub fn answered(&mut self, after: Duration, company: u32, now: Duration) {
        if self.stale > 0 {
            self.stale -= 1;
            if self.stale == 0 {
                self.begin(now);
            }
            return;
        }
        self.was_full |= company >= self.places();
        self.company += f64::from(company);
        self.counted += 1.0;
        if self.answers.len() < LOOKED_AT {
            self.answers.push(after.as_secs_f64());
        }
        if self.answers.len() >= ANSWERS && now.saturating_sub(self.since) >= WINDOW {
            let window = Window {
                median: median(&mut self.answers),
                company: self.company / self.counted,
                was_full: self.was_full,
            };
            self.begin(now);
            self.learn(window, company, now);
        }
    }

    /// The instance said that it takes no more, with `company` messages there.
    pub fn refused(&mut self, company: u32, now: Duration) {
        // What was on the way when it said so first is refused as well, and says nothing new.
        let pause = Duration::from_secs_f64(self.base().unwrap_or_default().clamp(0.1, 10.0));
        if self.refused_at.is_some_and(|at| now.saturating_sub(at) < pause) {
            return;
        }
        self.refused_at = Some(now);
        self.seeking = None;
        self.change(self.places.min(f64::from(company.max(1))) * 0.8, company);
    }

    fn begin(&mut self, now: Duration) {
        self.answers.clear();
        self.company = 0.0;
        self.counted = 0.0;
        self.since = now;
        self.was_full = false;
    }

    fn learn(&mut self, window: Window, company: u32, now: Duration) {
        if let Some(seeking) = self.seeking {
            return self.sought(seeking, window, company, now);
        }
        let Some(base) = self.base else {
            if window.was_full && self.declared.is_none() {
                return self.seek(window, company);
            }
            return self.found(window.median, window.company, now);
        };
        let has_more_company = window.company > base.company * MORE;
        let base = base.after(window);
        self.base = Some(base);
        if self.declared.is_some() {
            if window.was_full {
                self.change(self.places + 1.0, company);
            }
            return;
        }
        self.full_windows += u32::from(window.was_full);
        let (windows, time) = SEEK_EVERY;
        if window.was_full && self.full_windows >= windows && now.saturating_sub(self.found_at) >= time {
            return self.seek(window, company);
        }
        let tolerated = base.tolerated();
        // While there are places nobody is held back, and there is time to be sure.
        let is_too_long = window.median
            > if window.was_full {
                tolerated
            } else {
                tolerated * PATIENT
            };
        let before = self.reduced.take();
        if is_too_long {
            if let Some(before) = before
                && window.company < before.company * LESS
                && window.median > before.median * UNMOVED
            {
                // With less company answers take as long: nobody waited, and the work has become longer.
                self.found(window.median, window.company, now);
                return self.change(before.company, company);
            }
            // Once may be chance: of few answers the median is rarely what it is of many.
            if has_more_company && std::mem::replace(&mut self.is_warned, true) {
                self.is_warned = false;
                self.was_too_much = true;
                self.reduced = Some(window);
                let there = self.places.min(window.company);
                self.change(there * (tolerated / window.median).max(0.5), company);
            }
            return;
        }
        self.is_warned = false;
        if window.was_full {
            let part = if self.was_too_much { 0.1 } else { 0.5 };
            self.change(self.places + (self.places * part).max(1.0), company);
        }
    }

    fn seek(&mut self, window: Window, company: u32) {
        self.seeking = Some(Seeking {
            before: (self.places, window.median),
            last: window.median,
        });
        self.change(self.places / 2.0, company);
    }

    fn sought(&mut self, seeking: Seeking, window: Window, company: u32, now: Duration) {
        let median = window.median;
        let waited_inside = median < seeking.last * FASTER && median > NEGLIGIBLE;
        if waited_inside && window.was_full && self.places() > 1 {
            self.seeking = Some(Seeking {
                last: median,
                ..seeking
            });
            return self.change(self.places / 2.0, company);
        }
        self.seeking = None;
        match self.base {
            // One window more, and not the truth.
            Some(base) if (FASTER..1.0 / FASTER).contains(&(median / base.seconds)) => {
                let seconds = base.seconds + WEIGHT * (median - base.seconds);
                self.found(seconds, window.company, now);
            }
            _ => self.found(median, window.company, now),
        }
        let (places, with_all) = seeking.before;
        let tolerated = self.base.map_or(median, Base::tolerated);
        self.was_too_much |= with_all > tolerated;
        self.change(places * (tolerated / with_all).min(1.0), company);
    }

    const fn found(&mut self, seconds: f64, company: f64, now: Duration) {
        self.base = Some(Base { seconds, company });
        self.full_windows = 0;
        self.found_at = now;
    }

    fn most(&self) -> f64 {
        let most = self.declared.unwrap_or(MOST);
        self.ceiling.map_or(most, |ceiling| ceiling.clamp(1.0, most))
    }

    /// It may have no more than this, with `company` messages there; none: as many as its card says. What it could not have because
    /// of the ceiling before it has at once.
    pub fn set_ceiling(&mut self, ceiling: Option<u32>, company: u32) {
        let before = self.most();
        self.ceiling = ceiling.map(f64::from);
        let was_at_it = self.places >= before;
        let places = if was_at_it { self.most() } else { self.places };
        self.change(places, company);
    }

    /// Takes another limit. Calls that are under way began under the old one.
    fn change(&mut self, places: f64, company: u32) {
        let before = self.places();
        self.places = places.clamp(1.0, self.most());
        if self.places() < before {
            self.stale = company;
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    *median
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An agent that works on so many calls at once, each of which takes `service` seconds; others wait inside. It is kept as
    /// full as the limit allows, or as full as `most` says.
    struct Agent {
        limit: Limit,
        at_once: u32,
        now: f64,
    }

    impl Agent {
        fn new(declared: Option<u32>, at_once: u32) -> Self {
            Self {
                limit: Limit::new(declared),
                at_once,
                now: 0.0,
            }
        }

        /// So many answers. Where more calls are there than it works on, each waits for its turn.
        fn answer(&mut self, count: usize, most: u32, mut service: impl FnMut(usize) -> f64) {
            for number in 0..count {
                let company = self.limit.places().min(most);
                let busy = company.min(self.at_once);
                let time = service(number);
                let took = time * f64::from(company) / f64::from(busy);
                self.now += time / f64::from(busy);
                let now = Duration::from_secs_f64(self.now);
                self.limit.answered(Duration::from_secs_f64(took), company, now);
            }
        }
    }

    #[test]
    fn a_ceiling_is_kept_and_what_it_withheld_is_there_again_without_it() {
        let mut limit = Limit::new(Some(100));
        limit.set_ceiling(Some(90), 0);
        assert_eq!(limit.places(), 90);
        limit.change(1_000.0, 0);
        assert_eq!(limit.places(), 90);
        limit.set_ceiling(Some(95), 0);
        assert_eq!(limit.places(), 95);
        limit.set_ceiling(None, 0);
        assert_eq!(limit.places(), 100);
        // An agent that has refused is not given more because a ceiling goes.
        limit.refused(50, Duration::from_secs(1));
        limit.set_ceiling(Some(90), 0);
        limit.set_ceiling(None, 0);
        assert_eq!(limit.places(), 40);
    }

    #[test]
    fn what_an_agent_takes_is_found_though_it_is_overloaded_from_the_start() {
        for at_once in [1, 4, 8, 50, 300] {
            let mut agent = Agent::new(None, at_once);
            agent.answer(200_000, u32::MAX, |_| 0.02);
            let places = agent.limit.places();
            assert!(
                (at_once..=at_once + at_once.div_ceil(2) + 1).contains(&places),
                "{at_once}: {places}"
            );
        }
    }

    #[test]
    fn answers_of_very_different_length_do_not_strangle_an_agent() {
        let mut agent = Agent::new(None, 16);
        // One in five takes fifty times as long.
        agent.answer(
            50_000,
            u32::MAX,
            |number| if number % 5 == 0 { 2.0 } else { 0.04 },
        );
        assert!(
            (14..=28).contains(&agent.limit.places()),
            "{}",
            agent.limit.places()
        );
    }

    #[test]
    fn work_that_becomes_longer_is_not_taken_for_overload_for_ever() {
        let mut agent = Agent::new(None, 10);
        agent.answer(20_000, u32::MAX, |_| 0.02);
        agent.answer(60_000, u32::MAX, |_| 0.2);
        assert!(
            (9..=16).contains(&agent.limit.places()),
            "{}",
            agent.limit.places()
        );
    }

    #[test]
    fn an_agent_that_answers_in_no_time_is_not_held_back() {
        let mut agent = Agent::new(None, 1);
        agent.answer(300_000, u32::MAX, |_| 0.000_02);
        assert!(agent.limit.places() >= 150, "{}", agent.limit.places());
    }

    #[test]
    fn calls_that_wait_inside_are_seen_before_all_places_are_taken() {
        let mut agent = Agent::new(None, 8);
        agent.answer(1000, 6, |_| 0.02);
        agent.answer(1000, 24, |_| 0.02);
        assert!(
            (8..=12).contains(&agent.limit.places()),
            "{}",
            agent.limit.places()
        );
        assert!((agent.limit.base().unwrap() - 0.02).abs() < 1e-3);
    }

    #[test]
    fn where_there_is_room_nothing_changes_but_the_base() {
        let mut agent = Agent::new(None, 100);
        agent.answer(10_000, 5, |_| 0.05);
        assert_eq!(agent.limit.places(), 64);
        assert!((agent.limit.base().unwrap() - 0.05).abs() < 1e-9);
    }

    #[test]
    fn what_a_card_says_holds_and_refusals_lower_it_for_a_while() {
        let mut agent = Agent::new(Some(8), 8);
        agent.answer(10_000, u32::MAX, |_| 0.02);
        assert_eq!(agent.limit.places(), 8);
        let now = Duration::from_secs_f64(agent.now);
        agent.limit.refused(8, now);
        assert_eq!(agent.limit.places(), 6);
        agent.limit.refused(6, now);
        assert_eq!(agent.limit.places(), 6, "those under way say nothing new");
        agent.answer(10_000, u32::MAX, |_| 0.02);
        assert_eq!(agent.limit.places(), 8);
    }

    proptest! {
        #[test]
        fn there_is_always_a_place_and_never_more_than_declared(
            declared in proptest::option::of(0u32..20),
            steps in proptest::collection::vec((0u64..3_000_000, 0u32..40, 0u64..1000, any::<bool>()), 1..800),
        ) {
            let mut limit = Limit::new(declared);
            let mut now = Duration::ZERO;
            for (micros, company, later, is_answer) in steps {
                now += Duration::from_millis(later);
                if is_answer {
                    limit.answered(Duration::from_micros(micros), company, now);
                } else {
                    limit.refused(company, now);
                }
                prop_assert!(limit.places() >= 1);
                prop_assert!(declared.is_none_or(|most| limit.places() <= most.max(1)));
            }
        }
    }
}
