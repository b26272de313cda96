//! What agent cards said lately.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::{CACHE_CONTROL, HeaderMap};

use super::card::Interface;

/// Most cards that are remembered.
const MOST: usize = 1000;

/// How long one is remembered that does not say for how long it holds.
pub(super) const DEFAULT_AGE: Duration = Duration::from_secs(60);

/// The longest that any is.
const LONGEST_AGE: Duration = Duration::from_secs(600);

/// Interfaces by the addresses in documents.
#[derive(Default)]
pub(super) struct Cards {
    known: Mutex<HashMap<String, (Interface, Duration)>>,
}

impl Cards {
    /// The interface, while it holds.
    pub(super) fn find(&self, key: &str, now: Duration) -> Option<Interface> {
        let known = self.known.lock();
        let (interface, until) = known.get(key)?;
        (now < *until).then(|| interface.clone())
    }

    /// Remembers the interface for so long.
    pub(super) fn keep(&self, key: String, interface: Interface, now: Duration, age: Duration) {
        let mut known = self.known.lock();
        if known.len() >= MOST {
            known.retain(|_, (_, until)| now < *until);
        }
        if known.len() < MOST {
            known.insert(key, (interface, now.saturating_add(age)));
        }
    }

    /// Forgets it.
    pub(super) fn forget(&self, key: &str) {
        self.known.lock().remove(key);
    }
}

/// How long a card holds, as the headers say.
pub(super) fn age(headers: &HeaderMap) -> Duration {
    let directives = headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok());
    let Some(directives) = directives else {
        return DEFAULT_AGE;
    };
    let mut age = DEFAULT_AGE;
    for directive in directives
        .split(',')
        .map(|directive| directive.trim().to_ascii_lowercase())
    {
        if matches!(directive.as_str(), "no-store" | "no-cache") {
            return Duration::ZERO;
        }
        if let Some(seconds) = directive
            .strip_prefix("max-age=")
            .and_then(|seconds| seconds.parse().ok())
        {
            age = Duration::from_secs(seconds);
        }
    }
    age.min(LONGEST_AGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age_of(value: &str) -> u64 {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, value.parse().unwrap());
        age(&headers).as_secs()
    }

    #[test]
    fn a_card_holds_as_long_as_it_says_within_bounds() {
        assert_eq!(age(&HeaderMap::new()), DEFAULT_AGE);
        assert_eq!(age_of("public, Max-Age=5"), 5);
        assert_eq!(age_of("max-age=100000"), 600);
        assert_eq!(age_of("no-store, max-age=5"), 0);
        assert_eq!(age_of("private"), 60);
    }

    #[test]
    fn what_holds_no_longer_is_forgotten() {
        let cards = Cards::default();
        let interface = || Interface::bare("https://a.test/".parse().unwrap());
        let second = Duration::from_secs;
        cards.keep("a".into(), interface(), second(10), second(5));
        assert_eq!(cards.find("a", second(14)), Some(interface()));
        assert_eq!(cards.find("a", second(15)), None);
        assert_eq!(cards.find("b", second(14)), None);
        cards.forget("a");
        assert_eq!(cards.find("a", second(14)), None);
        for number in 0..=MOST {
            cards.keep(number.to_string(), interface(), second(1), second(5));
        }
        assert_eq!(
            cards.find(&MOST.to_string(), second(1)),
            None,
            "there is no room while all hold"
        );
        cards.keep("c".into(), interface(), second(10), second(5));
        assert_eq!(cards.find("c", second(11)), Some(interface()));
    }
}
