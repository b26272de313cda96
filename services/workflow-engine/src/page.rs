//! Pages: opaque cursors over a sort key, stable while entries come and go.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

/// Entries on a page when the caller does not say.
const USUAL: usize = 50;
/// Entries on a page at most.
const MOST: usize = 100;
/// Longer tokens are not ours.
const LONGEST_TOKEN: usize = 1024;

/// A token that this service did not make, or made for another list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a page token of this list and this search")]
pub struct InvalidToken;

/// Which list a token belongs to, so that none is taken for another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// Documents of the catalogue.
    Workflows,
    /// Runs.
    Runs,
    /// Entries of a journal.
    History,
    /// Approvals.
    Approvals,
    /// Events of the log.
    Events,
    /// Schedules.
    Schedules,
}

impl List {
    const fn tag(self) -> u8 {
        match self {
            Self::Workflows => b'w',
            Self::Runs => b'r',
            Self::History => b'h',
            Self::Approvals => b'a',
            Self::Events => b'e',
            Self::Schedules => b's',
        }
    }

    /// A token that stands for the place after `cursor` of the list that `search` has found.
    #[must_use]
    pub fn token(self, search: &impl fmt::Debug, cursor: &impl Serialize) -> String {
        let mut bytes = vec![self.tag()];
        bytes.extend(fingerprint(search));
        bytes.extend(serde_json::to_vec(cursor).expect("cursors are plain text and numbers"));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place that a token stands for; `None` for the empty token, the start.
    ///
    /// # Errors
    /// The token is not one of this list's, or of another search.
    pub fn cursor<C: DeserializeOwned>(
        self,
        search: &impl fmt::Debug,
        token: &str,
    ) -> Result<Option<C>, InvalidToken> {
        if token.is_empty() {
            return Ok(None);
        }
        if token.len() > LONGEST_TOKEN {
            return Err(InvalidToken);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| InvalidToken)?;
        let cursor = bytes.strip_prefix(&[self.tag()]);
        let cursor = cursor.and_then(|bytes| bytes.strip_prefix(&fingerprint(search)));
        serde_json::from_slice(cursor.ok_or(InvalidToken)?)
            .map(Some)
            .map_err(|_| InvalidToken)
    }
}

/// What tells the tokens of one search from those of another.
fn fingerprint(search: &impl fmt::Debug) -> [u8; 4] {
    let [first, second, third, fourth, ..] = Sha256::digest(format!("{search:?}")).0;
    [first, second, third, fourth]
}

/// How many entries a page has when the caller asks for `wanted`.
#[must_use]
pub fn size(wanted: u32) -> usize {
    match usize::try_from(wanted).unwrap_or(MOST) {
        0 => USUAL,
        wanted => wanted.min(MOST),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_a_default_and_a_limit() {
        assert_eq!([0, 1, 100, 101, u32::MAX].map(size), [50, 1, 100, 100, 100]);
    }

    #[test]
    fn a_token_belongs_to_its_list() {
        let token = List::Runs.token(&"all", &(7_i64, "run"));
        assert_eq!(
            List::Runs.cursor(&"all", &token),
            Ok(Some((7_i64, "run".to_owned())))
        );
        assert_eq!(
            List::Runs.cursor::<(i64, String)>(&"some", &token),
            Err(InvalidToken)
        );
        assert_eq!(
            List::Workflows.cursor::<(i64, String)>(&"all", &token),
            Err(InvalidToken)
        );
        assert_eq!(List::History.cursor::<u64>(&"all", ""), Ok(None));
    }

    proptest! {
        #[test]
        fn no_text_is_taken_for_a_token_by_accident(text in ".{0,40}") {
            if let Ok(Some((time, id))) = List::Runs.cursor::<(i64, String)>(&(), &text) {
                prop_assert_eq!(List::Runs.token(&(), &(time, id)), text);
            }
        }
    }
}
