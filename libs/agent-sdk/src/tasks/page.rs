//! Pages of a list of tasks: newest first, with cursors that stay valid while tasks come and go.
//!
//! A cursor names the last task of a page by its sort key, not by its position, so that an insert shifts nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Place of a task in the list: time of its last status in microseconds, then its id.
pub(super) type Key = (i64, String);

/// Tasks of a page where the caller does not say.
const DEFAULT_SIZE: usize = 50;
/// Most tasks of a page.
const MOST: usize = 100;

/// How many tasks a page has.
pub(super) fn size(asked: Option<i32>) -> Result<usize, String> {
    match asked {
        None | Some(0) => Ok(DEFAULT_SIZE),
        Some(asked) => match usize::try_from(asked) {
            Ok(size) => Ok(size.min(MOST)),
            Err(_) => Err(format!("is {asked}; 1 to {MOST} are allowed")),
        },
    }
}

pub(super) fn encode((time, id): &Key) -> String {
    URL_SAFE_NO_PAD.encode(format!("{time} {id}"))
}

pub(super) fn decode(token: &str) -> Option<Key> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (time, id) = text.split_once(' ')?;
    Some((time.parse().ok()?, id.to_owned()))
}
