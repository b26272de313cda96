//! Pages: how large they are, and the opaque cursor from one to the next.
//!
//! A cursor names the last agent of its page, so that agents who come or go between two pages neither repeat nor
//! hide others. It also carries the namespace: a cursor is refused where it was not made.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_api::names;

/// Entries per page when nothing is said.
const DEFAULT_SIZE: u32 = 50;
/// Most entries per page.
const MAX_SIZE: u32 = 100;
/// Says what the rest of a cursor is; changes with its form.
const FORM: &str = "agents-1";

/// The token is not a cursor of this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("page_token: this is no token of this list; start again without one")]
pub struct Error;

/// The page size that is meant: 0 is the default, and more than the most is the most.
#[must_use]
pub fn size(asked: u32) -> usize {
    let size = if asked == 0 {
        DEFAULT_SIZE
    } else {
        asked.min(MAX_SIZE)
    };
    size as usize
}

/// The token for the page after `last`.
#[must_use]
pub fn token(namespace: &str, last: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{FORM}\n{namespace}\n{last}"))
}

/// The agent after which a page begins; `None` for the first page.
pub fn after(namespace: &str, token: &str) -> Result<Option<String>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error)?;
    let text = String::from_utf8(bytes).map_err(|_| Error)?;
    let mut lines = text.split('\n');
    match (lines.next(), lines.next(), lines.next(), lines.next()) {
        (Some(FORM), Some(made_for), Some(last), None)
            if made_for == namespace && names::is_dns_label(last) =>
        {
            Ok(Some(last.to_owned()))
        }
        _ => Err(Error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_is_good_only_where_it_was_made() {
        let token = token("default", "weather");
        assert_eq!(after("default", &token), Ok(Some("weather".to_owned())));
        assert_eq!(after("other", &token), Err(Error));
        assert_eq!(after("default", ""), Ok(None));
    }

    proptest! {
        #[test]
        fn other_texts_are_refused(text in ".{1,40}") {
            prop_assert_eq!(after("default", &text), Err(Error));
        }
    }
}
