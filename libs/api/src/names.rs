//! Identifiers and the nearest-name suggestions that errors carry.

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

/// The names closest to `wanted`, best first, at most three, none that is too far to be a slip of the finger.
#[must_use]
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    const LEAST_SIMILARITY: f64 = 0.75;
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(f64, &str)> = known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), name))
        .filter(|(similarity, _)| *similarity >= LEAST_SIMILARITY)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().take(3).map(|(_, name)| name).collect()
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
    use super::*;

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
