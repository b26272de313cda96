//! Which instance gets the next call: pure, with the random numbers passed in.
//!
//! Power of two choices: of two instances drawn at random the cheaper one gets the call. It is nearly as good as
//! taking the cheapest of all, and unlike that it does not send every router's next call to the same instance
//! while load reports are on their way.
//!
//! The cost of an instance is the work it has (calls from here, and what it reports, which counts the calls of
//! others) times how slow it has been relative to the other candidates, divided by how often it succeeds.
//! Preferences come before cost: the caller's region and room below the maximum load, but never at the price of a
//! refusal; when everybody is busy, the busy are chosen from.

/// What an instance's reported load of 1 is worth in calls.
const CALLS_AT_FULL_LOAD: f64 = 8.0;

/// How much latency may raise or lower the cost.
const LATENCY_FACTOR: (f64, f64) = (0.25, 4.0);

/// An instance that has failed everything is this much worse than a perfect one, and not infinitely, so that it
/// is tried again where it is the only one.
const LEAST_SUCCESS: f64 = 0.05;

/// What is known of an instance that could take the call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Calls from this router that are with it now.
    pub in_flight: u32,
    /// Load from 0 to 1, as it reported.
    pub load: f64,
    /// Smoothed time to answer in seconds; `None` before its first answer.
    pub latency: Option<f64>,
    /// Smoothed share of successes, from 0 to 1.
    pub success: f64,
    /// Whether it is in the preferred region, or no region is preferred.
    pub near: bool,
    /// Whether it says that others are to be preferred.
    pub busy: bool,
}

impl Candidate {
    /// Lower is preferred; see the module's documentation.
    fn tier(&self, max_load: f64) -> u8 {
        let full = self.busy || self.load > max_load;
        u8::from(full) * 2 + u8::from(!self.near)
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

/// Picks one of the candidates, by position; `None` only when there are none. `random` returns a number below
/// its argument.
pub fn pick(
    candidates: &[Candidate],
    max_load: f64,
    mut random: impl FnMut(usize) -> usize,
) -> Option<usize> {
    let tier = candidates
        .iter()
        .map(|candidate| candidate.tier(max_load))
        .min()?;
    let eligible: Vec<usize> = (0..candidates.len())
        .filter(|&index| candidates[index].tier(max_load) == tier)
        .collect();
    let mut draw = |below: usize| random(below).min(below - 1);
    let first = draw(eligible.len());
    if eligible.len() == 1 {
        return eligible.first().copied();
    }
    // The second is drawn from the others, so that the two differ.
    let second = (first + 1 + draw(eligible.len() - 1)) % eligible.len();
    let mean = mean_latency(eligible.iter().map(|&index| &candidates[index]));
    let cost = |position: usize| candidates[eligible[position]].cost(mean);
    let cheaper = if cost(second) < cost(first) { second } else { first };
    eligible.get(cheaper).copied()
}

fn mean_latency<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> Option<f64> {
    let known: Vec<f64> = candidates.filter_map(|candidate| candidate.latency).collect();
    #[expect(clippy::cast_precision_loss, reason = "a count of instances")]
    let count = known.len() as f64;
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDLE: Candidate = Candidate {
        in_flight: 0,
        load: 0.0,
        latency: None,
        success: 1.0,
        near: true,
        busy: false,
    };

    /// With two candidates both are drawn, so the cheaper one must win whatever the numbers.
    fn better(one: Candidate, other: Candidate) -> usize {
        let picks: Vec<usize> = [0, 1]
            .iter()
            .map(|&number| pick(&[one, other], 0.8, |_| number).unwrap())
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
        let far = Candidate { near: false, ..IDLE };
        assert_eq!(better(near_but_working, far), 0);
        let near_but_full = Candidate { load: 0.9, ..IDLE };
        assert_eq!(better(near_but_full, far), 1);
        let busy = Candidate { busy: true, ..IDLE };
        assert_eq!(better(busy, Candidate { in_flight: 9, ..IDLE }), 1);
    }

    #[test]
    fn a_full_fleet_is_still_chosen_from() {
        let full = Candidate { load: 1.0, ..IDLE };
        assert_eq!(pick(&[full], 0.8, |_| 0), Some(0));
        assert_eq!(pick(&[], 0.8, |_| 0), None);
    }

    fn candidate() -> impl Strategy<Value = Candidate> {
        (
            0u32..20,
            proptest::num::f64::ANY,
            proptest::option::of(0.0f64..10.0),
            proptest::num::f64::ANY,
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(|(in_flight, load, latency, success, near, busy)| Candidate {
                in_flight,
                load,
                latency,
                success,
                near,
                busy,
            })
    }

    proptest! {
        #[test]
        fn somebody_is_picked_whenever_there_is_anybody(
            candidates in proptest::collection::vec(candidate(), 0..12), numbers in any::<[usize; 2]>(),
        ) {
            let mut numbers = numbers.into_iter();
            let picked = pick(&candidates, 0.8, |below| numbers.next().unwrap_or(0) % below);
            prop_assert_eq!(picked.is_some(), !candidates.is_empty());
            if let Some(picked) = picked {
                let best = candidates.iter().map(|candidate| candidate.tier(0.8)).min().unwrap();
                prop_assert_eq!(candidates[picked].tier(0.8), best);
            }
        }

        #[test]
        fn equal_instances_all_get_work(count in 1usize..8) {
            let candidates = vec![IDLE; count];
            let picked: std::collections::HashSet<usize> = (0..count)
                .filter_map(|first| pick(&candidates, 0.8, |_| first % count))
                .collect();
            prop_assert!(picked.len() >= count.div_ceil(2));
        }

        #[test]
        fn the_most_expensive_of_three_or_more_never_wins(
            work in proptest::collection::vec(0u32..100, 3..10), first in any::<usize>(), second in any::<usize>(),
        ) {
            let candidates: Vec<Candidate> = work.iter().map(|&in_flight| Candidate { in_flight, ..IDLE }).collect();
            let mut numbers = [first, second].into_iter();
            let picked = pick(&candidates, 0.8, |below| numbers.next().unwrap_or(0) % below).unwrap();
            let most = work.iter().max().unwrap();
            let alone = work.iter().filter(|calls| *calls == most).count() == 1;
            prop_assert!(!(alone && work[picked] == *most));
        }
    }
}
