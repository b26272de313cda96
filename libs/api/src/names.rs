//! Identifiers and the nearest-name suggestions that errors carry.

use std::collections::BinaryHeap;

/// The namespace that an empty one means.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Longest DNS label, in bytes (RFC 1035).
const MAX_LABEL: usize = 63;

/// Whether `text` is a DNS label: 1 to 63 of `a-z`, `0-9` and `-`, with a letter or digit at both ends.
#[must_use]
pub fn is_dns_label(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= MAX_LABEL
        && bytes.iter().all(|&byte| alphanumeric(byte) || byte == b'-')
        && alphanumeric(bytes[0])
        && alphanumeric(bytes[bytes.len() - 1])
}

/// Less similar names are no slip of the finger.
const LEAST_SIMILARITY: f64 = 0.75;

/// Most names in a suggestion.
const MOST_NEAREST: usize = 3;

/// Letters at the beginning that count more than others.
const START: usize = 4;

/// What tells of two names how similar they can be at most, without reading them: how long a name is, which letters it has
/// and how it begins. Whoever suggests among many names keeps this with each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outline {
    letters: u64,
    start: [u8; START],
    length: u32,
    /// Names in other scripts are compared by their length alone.
    is_ascii: bool,
}

impl Outline {
    /// That of a name, whatever its case.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let length = if name.is_ascii() {
            name.len()
        } else {
            name.to_lowercase().chars().count()
        };
        let mut outline = Self {
            letters: 0,
            start: [0; START],
            length: u32::try_from(length).unwrap_or(u32::MAX),
            is_ascii: name.is_ascii(),
        };
        let bytes = name.bytes().map(|byte| byte.to_ascii_lowercase());
        for (kept, byte) in outline.start.iter_mut().zip(bytes) {
            *kept = byte;
        }
        for byte in name.bytes() {
            outline.letters |= 1 << (byte.to_ascii_uppercase().wrapping_sub(b' ') & 63);
        }
        outline
    }

    /// What the Jaro-Winkler similarity of the two names does not exceed: as if all letters that both have were in the same
    /// places.
    fn similarity_at_most(&self, other: &Self) -> f64 {
        // More than what rounding makes of it.
        const SLACK: f64 = 1e-9;
        let (here, there) = (self.length, other.length);
        if here == 0 || there == 0 {
            return if here == there { 1.0 } else { 0.0 };
        }
        let is_ascii = self.is_ascii && other.is_ascii;
        let (missing_here, missing_there, start) = if is_ascii {
            let start = self.start.iter().zip(&other.start);
            let same = start
                .take_while(|(one, other)| one == other && **one != 0)
                .count();
            (
                (other.letters & !self.letters).count_ones(),
                (self.letters & !other.letters).count_ones(),
                same,
            )
        } else {
            (0, 0, START)
        };
        let shared = f64::from((here - missing_there).min(there - missing_here));
        if shared == 0.0 {
            return 0.0;
        }
        let jaro = (shared / f64::from(here) + shared / f64::from(there) + 1.0) / 3.0 + SLACK;
        let boost = [0.0, 0.1, 0.2, 0.3, 0.4][start];
        if jaro > 0.7 {
            jaro + boost * (1.0 - jaro)
        } else {
            jaro
        }
    }
}

/// The names closest to `wanted`, best first, at most three, none that is too far to be a slip of the finger.
#[must_use]
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let known = known.into_iter().map(|name| (Outline::of(name), name));
    nearest_outlined(wanted, known)
}

/// The same of names whose outlines are known already: most are not read.
#[must_use]
pub fn nearest_outlined<'a>(
    wanted: &str,
    known: impl IntoIterator<Item = (Outline, &'a str)>,
) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let outline = Outline::of(&wanted);
    let possible = known.into_iter().filter_map(|(other, name)| {
        let most = outline.similarity_at_most(&other);
        (most >= LEAST_SIMILARITY).then_some((most, name))
    });
    let possible: Vec<(f64, &str)> = possible.collect();
    // Numbers that are not negative have the order of their bits.
    let places = possible
        .iter()
        .enumerate()
        .map(|(place, (most, _))| (most.to_bits(), place));
    let mut places: BinaryHeap<(u64, usize)> = places.collect();
    let mut best: Vec<(f64, &str)> = Vec::new();
    while let Some((most, place)) = places.pop() {
        let name = possible[place].1;
        let worst = best.get(MOST_NEAREST - 1);
        if worst.is_some_and(|(worst, _)| f64::from_bits(most) < *worst) {
            break;
        }
        let similarity = strsim::jaro_winkler(&wanted, &name.to_lowercase());
        if similarity < LEAST_SIMILARITY || best.iter().any(|(_, known)| *known == name) {
            continue;
        }
        let is_before = |(known, other): &(f64, &str)| {
            known
                .total_cmp(&similarity)
                .reverse()
                .then_with(|| other.cmp(&name))
                .is_lt()
        };
        best.insert(best.partition_point(is_before), (similarity, name));
        best.truncate(MOST_NEAREST);
    }
    best.into_iter().map(|(_, name)| name).collect()
}

/// `; did you mean 'a', 'b'?`, or nothing when no name is near: ready to append to a message.
#[must_use]
pub fn suggestion<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(wanted, known).as_slice() {
        [] => String::new(),
        names => {
            let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
            format!("; did you mean {}?", quoted.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same without outlines.
    fn plainly<'a>(wanted: &str, known: &[&'a str]) -> Vec<&'a str> {
        let wanted = wanted.to_lowercase();
        let similarity = |name: &str| strsim::jaro_winkler(&wanted, &name.to_lowercase());
        let mut near: Vec<_> = known.iter().map(|name| (similarity(name), *name)).collect();
        near.retain(|(similarity, _)| *similarity >= LEAST_SIMILARITY);
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        near.dedup();
        near.into_iter()
            .take(MOST_NEAREST)
            .map(|(_, name)| name)
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn outlines_hide_no_name_that_is_near(
            wanted in "[ab]{0,3}[a-dA-D1_Σß]{0,9}",
            known in prop::collection::vec("[ab]{0,3}[a-dA-D1_Σß]{0,9}", 0..40),
        ) {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            prop_assert_eq!(nearest(&wanted, known.iter().copied()), plainly(&wanted, &known));
        }
    }

    #[test]
    fn dns_labels_are_told_from_other_text() {
        for good in ["a", "weather", "customer-service", "a1", &"x".repeat(63)] {
            assert!(is_dns_label(good), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "Weather",
            "a.b",
            "a_b",
            "wetter!",
            &"x".repeat(64),
        ] {
            assert!(!is_dns_label(bad), "{bad}");
        }
    }

    #[test]
    fn near_names_come_first_and_far_ones_not_at_all() {
        let known = ["weather", "planning", "customer-service"];
        assert_eq!(nearest("wether", known), ["weather"]);
        assert!(nearest("zzz", known).is_empty());
        assert_eq!(suggestion("planing", known), "; did you mean 'planning'?");
        assert_eq!(suggestion("zzz", known), "");
    }
}
