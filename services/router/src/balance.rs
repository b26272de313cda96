//! Which instance gets the next call: pure, with the random numbers passed in.
//!
//! Power of two choices: of two instances drawn at random the cheaper one gets the call. It is nearly as good as
//! taking the cheapest of all, and unlike that it does not send every router's next call to the same instance
//! while load reports are on their way.
//!
//! The cost of an instance is the work it has (calls from here, and what it reports, which counts the calls of
//! others) times how slow it has been relative to the other candidates, divided by how often it succeeds.
//! Preferences come before cost: room below the maximum load, and then the nearest region ([`crate::regions`]), but never at
//! the price of a refusal; when everybody is busy, the busy are chosen from. So calls spill over to the next region when the
//! nearest is full, ejected or gone, and come back with it.
//!
//! Instances may have weights. The first of the two is drawn by weight, the second by weight from those of the same version:
//! so a version that is tried out gets exactly its share of new work, however idle it is, and within a version the cheaper one
//! still wins. An instance that has just come gets less at first ([`Preferences::slow_start`]): it has caches to fill and
//! pools to open, and without load it would look best of all. Where all of a region have just come (it was away) and those of
//! the next have not, the rest of the calls go on to the next, so that a region that comes back is not flooded by the
//! traffic of all. Who has weight 0 is drawn only where all have.

use std::time::Duration;

use crate::tuning;

/// What an instance's reported load of 1 is worth in calls.
const CALLS_AT_FULL_LOAD: f64 = 8.0;

/// How much latency may raise or lower the cost.
const LATENCY_FACTOR: (f64, f64) = (0.25, 4.0);

/// An instance that has failed everything is this much worse than a perfect one, and not infinitely, so that it
/// is tried again where it is the only one.
const LEAST_SUCCESS: f64 = 0.05;

/// The part of its weight that an instance has when it has just come.
const LEAST_SHARE: f64 = 0.1;

/// Parts into which a unit of weight is cut where some instances have just come.
const PARTS: f64 = 1000.0;

/// As many, to draw one of them.
const WHOLE: usize = 1000;

/// What a balancer goes by beside the candidates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preferences {
    /// Load above which others are preferred, from 0 to 1.
    pub max_load: f64,
    /// How long it takes an instance to get its whole share; zero for at once.
    pub slow_start: Duration,
}

/// What is known of an instance that could take the call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate<'a> {
    /// Calls from this router that are with it now.
    pub in_flight: u32,
    /// Load from 0 to 1, as it reported.
    pub load: f64,
    /// Smoothed time to answer in seconds; `None` before its first answer.
    pub latency: Option<f64>,
    /// Smoothed share of successes, from 0 to 1.
    pub success: f64,
    /// How far its region is; 0 is the nearest.
    pub distance: u32,
    /// Whether it says that others are to be preferred.
    pub busy: bool,
    /// Its share of new work relative to the others.
    pub weight: u32,
    /// The part of that which it gets, in thousandths: less where it was found to be slow.
    pub tuned: u32,
    /// The build that runs.
    pub version: &'a str,
    /// How long it has been there.
    pub age: Duration,
}

impl Candidate<'_> {
    /// Lower is preferred; see the module's documentation.
    fn tier(&self, max_load: f64) -> Tier {
        Tier {
            is_idle_by_wish: self.weight == 0,
            is_full: self.busy || self.load > max_load,
            distance: self.distance,
        }
    }

    /// The part of its weight that it has by now.
    fn share(&self, slow_start: Duration) -> f64 {
        if self.age >= slow_start {
            1.0
        } else {
            (self.age.as_secs_f64() / slow_start.as_secs_f64()).max(LEAST_SHARE)
        }
    }

    fn cost(&self, mean_latency: Option<f64>) -> f64 {
        let work = f64::from(self.in_flight) + self.load.clamp(0.0, 1.0) * CALLS_AT_FULL_LOAD + 1.0;
        let slowness = match (self.latency, mean_latency) {
            (Some(latency), Some(mean)) if mean > 0.0 => {
                (latency / mean).clamp(LATENCY_FACTOR.0, LATENCY_FACTOR.1)
            }
            _ => 1.0,
        };
        work * slowness / self.success.clamp(LEAST_SUCCESS, 1.0)
    }
}

/// Among whom it is chosen by cost; lower is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Tier {
    is_idle_by_wish: bool,
    is_full: bool,
    distance: u32,
}

impl Tier {
    /// The tier whose turn it is: the best, unless all in it have just come and those further away have not.
    fn of(
        candidates: &[Candidate<'_>],
        preferences: Preferences,
        mut draw: impl FnMut(usize) -> usize,
    ) -> Option<Self> {
        let tier = |candidate: &Candidate<'_>| candidate.tier(preferences.max_load);
        let mut best = candidates.iter().map(tier).min()?;
        let grown = |wanted: Self| {
            let members = candidates.iter().filter(|candidate| tier(candidate) == wanted);
            let shares = members.map(|candidate| candidate.share(preferences.slow_start));
            shares.fold(0.0, f64::max)
        };
        loop {
            let share = grown(best);
            if share >= 1.0 {
                return Some(best);
            }
            let is_further = |next: &Self| *next > best && next.is_like(best);
            let Some(next) = candidates.iter().map(tier).filter(is_further).min() else {
                return Some(best);
            };
            let others = grown(next);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "from 0 to a thousand"
            )]
            let kept = (share / others * PARTS) as usize;
            if share >= others || draw(WHOLE) < kept {
                return Some(best);
            }
            best = next;
        }
    }

    /// Whether they differ by distance alone.
    fn is_like(self, other: Self) -> bool {
        self.is_idle_by_wish == other.is_idle_by_wish && self.is_full == other.is_full
    }
}

/// Picks one of the candidates, by position; `None` only when there are none. `random` returns a number below
/// its argument.
pub fn pick(
    candidates: &[Candidate<'_>],
    preferences: Preferences,
    mut random: impl FnMut(usize) -> usize,
) -> Option<usize> {
    let max_load = preferences.max_load;
    let mut draw = |below: usize| random(below).min(below - 1);
    let tier = Tier::of(candidates, preferences, &mut draw)?;
    let eligible: Vec<usize> = (0..candidates.len())
        .filter(|&index| candidates[index].tier(max_load) == tier)
        .collect();
    if let [only] = eligible.as_slice() {
        return Some(*only);
    }
    let weights: Vec<usize> = eligible
        .iter()
        .map(|&index| weight(&candidates[index], preferences.slow_start))
        .collect();
    let (first, second) = if weights.iter().all(|weight| *weight == weights[0]) {
        // The second is drawn from the others, so that the two differ.
        let first = draw(eligible.len());
        let second = (first + 1 + draw(eligible.len() - 1)) % eligible.len();
        (first, second)
    } else {
        let first = drawn(&weights, &mut draw)?;
        let version = candidates[eligible[first]].version;
        let others: Vec<usize> = (0..eligible.len())
            .map(|position| {
                let is_other = position != first && candidates[eligible[position]].version == version;
                if is_other { weights[position] } else { 0 }
            })
            .collect();
        match drawn(&others, &mut draw) {
            Some(second) => (first, second),
            None => return Some(eligible[first]),
        }
    };
    let mean = mean_latency(eligible.iter().map(|&index| &candidates[index]));
    #[expect(clippy::cast_precision_loss, reason = "a weight")]
    let share = |position: usize| weights[position].max(1) as f64;
    let cost = |position: usize| candidates[eligible[position]].cost(mean) / share(position);
    let cheaper = if cost(second) < cost(first) { second } else { first };
    Some(eligible[cheaper])
}

/// The weight that an instance has by now, in parts.
fn weight(candidate: &Candidate<'_>, slow_start: Duration) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a weight of 32 bits times a thousand at most"
    )]
    let parts =
        (f64::from(candidate.weight) * candidate.share(slow_start) * PARTS * f64::from(candidate.tuned)
            / f64::from(tuning::WHOLE)) as usize;
    parts
}

/// A position by weight; `None` where there is no weight.
fn drawn(weights: &[usize], draw: &mut impl FnMut(usize) -> usize) -> Option<usize> {
    let all: usize = weights.iter().sum();
    if all == 0 {
        return None;
    }
    let mut left = draw(all);
    weights.iter().position(|&weight| {
        let is_it = left < weight;
        left = left.saturating_sub(weight);
        is_it
    })
}

fn mean_latency<'a>(candidates: impl Iterator<Item = &'a Candidate<'a>>) -> Option<f64> {
    let known = candidates.filter_map(|candidate| candidate.latency);
    let (sum, count) = known.fold((0.0, 0.0), |(sum, count), latency| (sum + latency, count + 1.0));
    (count > 0.0).then(|| sum / count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDLE: Candidate<'static> = Candidate {
        in_flight: 0,
        load: 0.0,
        latency: None,
        success: 1.0,
        distance: 0,
        busy: false,
        weight: 100,
        tuned: tuning::WHOLE,
        version: "1",
        age: Duration::from_secs(3600),
    };

    const PREFERENCES: Preferences = Preferences {
        max_load: 0.8,
        slow_start: Duration::from_secs(10),
    };

    /// With two candidates both are drawn, so the cheaper one must win whatever the numbers.
    fn better(one: Candidate<'_>, other: Candidate<'_>) -> usize {
        let picks: Vec<usize> = [0, 1]
            .iter()
            .map(|&number| pick(&[one, other], PREFERENCES, |_| number).unwrap())
            .collect();
        assert_eq!(picks[0], picks[1]);
        picks[0]
    }

    #[test]
    fn the_less_loaded_the_faster_and_the_more_reliable_win() {
        assert_eq!(better(Candidate { in_flight: 3, ..IDLE }, IDLE), 1);
        assert_eq!(better(IDLE, Candidate { load: 0.5, ..IDLE }), 0);
        let fast = Candidate {
            latency: Some(0.1),
            ..IDLE
        };
        let slow = Candidate {
            latency: Some(1.0),
            ..IDLE
        };
        assert_eq!(better(slow, fast), 1);
        assert_eq!(better(IDLE, Candidate { success: 0.5, ..IDLE }), 0);
    }

    #[test]
    fn the_own_region_and_room_come_before_cost() {
        let near_but_working = Candidate {
            in_flight: 50,
            ..IDLE
        };
        let far = Candidate { distance: 1, ..IDLE };
        assert_eq!(better(Candidate { distance: 2, ..IDLE }, far), 1);
        assert_eq!(better(near_but_working, far), 0);
        let near_but_full = Candidate { load: 0.9, ..IDLE };
        assert_eq!(better(near_but_full, far), 1);
        let busy = Candidate { busy: true, ..IDLE };
        assert_eq!(better(busy, Candidate { in_flight: 9, ..IDLE }), 1);
    }

    /// How many of so many picks go to each, where the numbers are spread evenly.
    fn spread(candidates: &[Candidate<'_>], picks: usize) -> Vec<usize> {
        let mut counts = vec![0; candidates.len()];
        let mut state = 1u64;
        for _ in 0..picks {
            let random = |below: usize| {
                // Constants of Knuth's MMIX.
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(state >> 33).unwrap() % below
            };
            counts[pick(candidates, PREFERENCES, random).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn a_version_that_is_tried_out_gets_its_share_and_no_more() {
        let old = Candidate { weight: 95, ..IDLE };
        let new = Candidate {
            weight: 5,
            version: "2",
            ..IDLE
        };
        let counts = spread(&[old, new], 10_000);
        assert!((400..=600).contains(&counts[1]), "{counts:?}");
        // However busy the others are.
        let counts = spread(&[Candidate { in_flight: 50, ..old }, new], 10_000);
        assert!((400..=600).contains(&counts[1]), "{counts:?}");
        let nothing = Candidate { weight: 0, ..new };
        assert_eq!(spread(&[old, nothing], 1000)[1], 0);
        assert_eq!(spread(&[nothing], 10), [10], "there is nobody else");
    }

    #[test]
    fn who_has_just_come_gets_less_at_first() {
        let counts = |age| {
            let new = Candidate {
                age: Duration::from_secs(age),
                version: "2",
                ..IDLE
            };
            spread(&[IDLE, new], 10_000)[1]
        };
        assert!((700..=1200).contains(&counts(0)), "{}", counts(0));
        assert!((3000..=3700).contains(&counts(5)), "{}", counts(5));
        assert!(counts(10) >= 4000, "{}", counts(10));
    }

    #[test]
    fn a_full_fleet_is_still_chosen_from() {
        let full = Candidate { load: 1.0, ..IDLE };
        assert_eq!(pick(&[full], PREFERENCES, |_| 0), Some(0));
        assert_eq!(pick(&[], PREFERENCES, |_| 0), None);
    }

    fn candidate() -> impl Strategy<Value = Candidate<'static>> {
        (
            0u32..20,
            proptest::num::f64::ANY,
            proptest::option::of(0.0f64..10.0),
            proptest::num::f64::ANY,
            (0u32..3, any::<bool>()),
            (
                0u32..=1000,
                1u32..=tuning::WHOLE,
                prop_oneof![Just("1"), Just("2")],
                0u64..20,
            ),
        )
            .prop_map(
                |(in_flight, load, latency, success, (distance, busy), (weight, tuned, version, age))| {
                    Candidate {
                        in_flight,
                        load,
                        latency,
                        success,
                        distance,
                        busy,
                        weight,
                        tuned,
                        version,
                        age: Duration::from_secs(age),
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn somebody_is_picked_whenever_there_is_anybody(
            candidates in proptest::collection::vec(candidate(), 0..12), numbers in any::<[usize; 2]>(),
        ) {
            let mut numbers = numbers.into_iter();
            let picked = pick(&candidates, PREFERENCES, |below| numbers.next().unwrap_or(0) % below);
            prop_assert_eq!(picked.is_some(), !candidates.is_empty());
            if let Some(picked) = picked {
                let best = candidates.iter().map(|candidate| candidate.tier(0.8)).min().unwrap();
                let picked = candidates[picked].tier(0.8);
                let all_are_young = candidates
                    .iter()
                    .filter(|candidate| candidate.tier(0.8) == best)
                    .all(|candidate| candidate.age < PREFERENCES.slow_start);
                prop_assert!(picked == best || (all_are_young && picked.is_like(best)));
            }
        }

        #[test]
        fn a_region_that_comes_back_gets_more_as_it_grows_and_then_all(
            seconds in 0u64..20, near in 1usize..4, far in 1usize..4,
        ) {
            let back = Candidate { age: Duration::from_secs(seconds), ..IDLE };
            let steady = Candidate { distance: 1, ..IDLE };
            let candidates: Vec<_> = std::iter::repeat_n(back, near).chain(std::iter::repeat_n(steady, far)).collect();
            let counts = spread(&candidates, 4_000);
            let at_home: usize = counts[..near].iter().sum();
            let share = back.share(PREFERENCES.slow_start);
            #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
            let got = at_home as f64 / 4_000.0;
            prop_assert!((got - share).abs() < 0.05, "{} of {}", got, share);
            // Where the others have just come too, nobody is better than the own.
            let young: Vec<_> = candidates.iter().map(|one| Candidate { age: back.age, ..*one }).collect();
            prop_assert_eq!(spread(&young, 500)[..near].iter().sum::<usize>(), 500);
        }

        #[test]
        fn calls_go_to_the_nearest_region_that_has_room_and_to_a_full_one_only_where_all_are(
            full in proptest::collection::vec(any::<bool>(), 1..6),
        ) {
            let regions: Vec<Candidate<'_>> = (0u32..)
                .zip(&full)
                .map(|(distance, full)| Candidate { distance, load: if *full { 0.9 } else { 0.1 }, ..IDLE })
                .collect();
            let nearest = full.iter().position(|full| !full).unwrap_or(0);
            let counts = spread(&regions, 100);
            prop_assert_eq!(counts[nearest], 100);
        }

        #[test]
        fn equal_instances_all_get_work(count in 1usize..8) {
            let candidates = vec![IDLE; count];
            let picked: std::collections::HashSet<usize> = (0..count)
                .filter_map(|first| pick(&candidates, PREFERENCES, |_| first % count))
                .collect();
            prop_assert!(picked.len() >= count.div_ceil(2));
        }

        #[test]
        fn the_most_expensive_of_three_or_more_never_wins(
            work in proptest::collection::vec(0u32..100, 3..10), first in any::<usize>(), second in any::<usize>(),
        ) {
            let candidates: Vec<Candidate<'_>> = work.iter().map(|&in_flight| Candidate { in_flight, ..IDLE }).collect();
            let mut numbers = [first, second].into_iter();
            let picked = pick(&candidates, PREFERENCES, |below| numbers.next().unwrap_or(0) % below).unwrap();
            let most = work.iter().max().unwrap();
            let alone = work.iter().filter(|calls| *calls == most).count() == 1;
            prop_assert!(!(alone && work[picked] == *most));
        }
    }
}
