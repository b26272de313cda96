//! Pages: how large they are, and the opaque cursor from one to the next.
//!
//! A cursor names the last entry of its page, by its place in the order of the list, so that entries who come or go between two pages neither repeat nor
//! hide others. It also carries the namespace: a cursor is refused where it was not made.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_api::names;
use uuid::Uuid;

use crate::discovery::{Rank, Sort};

/// Entries per page when nothing is said.
const DEFAULT_SIZE: u32 = 50;
/// Most entries per page.
const MAX_SIZE: u32 = 100;
/// Says what the rest of a cursor is; changes with its form.
const FORM: &str = "agents-1";
/// The same, of cursors between instances.
const INSTANCES: &str = "instances-2";

/// The same, of cursors between agents that are kept by their cards.
const MANAGED: &str = "managed-1";

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

/// The token for the page after an agent that is kept by this card.
#[must_use]
pub fn managed_token(namespace: &str, agent_id: &str, card: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{MANAGED}\n{namespace}\n{agent_id}\n{card}"))
}

/// The agent and the card after which a page of those begins; `None` for the first page.
pub fn after_managed(namespace: &str, token: &str) -> Result<Option<(String, String)>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error)?;
    let text = String::from_utf8(bytes).map_err(|_| Error)?;
    let lines: Vec<&str> = text.split('\n').collect();
    match lines[..] {
        [MANAGED, made_for, agent_id, card] if made_for == namespace => {
            Ok(Some((agent_id.to_owned(), card.to_owned())))
        }
        _ => Err(Error),
    }
}

/// The token for the page after an instance.
#[must_use]
pub fn instance_token(namespace: &str, sort: Sort, last: &Rank) -> String {
    let Rank {
        first,
        second,
        instance_id,
        agent_id,
    } = last;
    let sort = sort.name();
    URL_SAFE_NO_PAD.encode(format!(
        "{INSTANCES}\n{namespace}\n{sort}\n{first}\n{second}\n{agent_id}\n{instance_id}"
    ))
}

/// The place after which a page of instances begins; `None` for the first page.
pub fn after_instance(namespace: &str, sort: Sort, token: &str) -> Result<Option<Rank>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error)?;
    let text = String::from_utf8(bytes).map_err(|_| Error)?;
    let lines: Vec<&str> = text.split('\n').collect();
    let [INSTANCES, made_for, by, first, second, agent_id, instance_id] = lines[..] else {
        return Err(Error);
    };
    if made_for != namespace || by != sort.name() || !names::is_dns_label(agent_id) {
        return Err(Error);
    }
    let number = |text: &str| text.parse().map_err(|_| Error);
    Ok(Some(Rank {
        first: number(first)?,
        second: number(second)?,
        instance_id: Uuid::try_parse(instance_id).map_err(|_| Error)?,
        agent_id: agent_id.into(),
    }))
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

    #[test]
    fn a_token_between_instances_is_good_for_its_order_alone() {
        let rank = Rank {
            first: 1,
            second: u64::MAX,
            instance_id: Uuid::from_u128(7),
            agent_id: "weather".into(),
        };
        let made = instance_token("default", Sort::Load, &rank);
        assert_eq!(after_instance("default", Sort::Load, &made), Ok(Some(rank)));
        assert_eq!(after_instance("default", Sort::Cost, &made), Err(Error));
        assert_eq!(after_instance("other", Sort::Load, &made), Err(Error));
        assert_eq!(
            after_instance("default", Sort::Load, &token("default", "weather")),
            Err(Error)
        );
        assert_eq!(after_instance("default", Sort::Load, ""), Ok(None));
    }

    proptest! {
        #[test]
        fn other_texts_are_refused(text in ".{1,40}") {
            prop_assert_eq!(after_instance("default", Sort::Load, &text), Err(Error));
            prop_assert_eq!(after("default", &text), Err(Error));
        }
    }
}
