//! Lists that come in pages: as many entries as were asked for, and whether there are more.

use crate::failure::Failure;

/// Entries of one page. The services give no more.
const PAGE: u32 = 100;

/// What was listed.
pub struct Listing<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// Whether there are more than were asked for.
    pub more: bool,
}

impl<T> Listing<T> {
    /// Gathers at most `limit` entries; `fetch` gets the size of a page and its token, and returns the entries and the next
    /// token.
    pub async fn gather(
        limit: u32,
        mut fetch: impl AsyncFnMut(u32, String) -> Result<(Vec<T>, String), Failure>,
    ) -> Result<Self, Failure> {
        let (mut entries, mut token) = (Vec::new(), String::new());
        loop {
            let missing = limit.saturating_sub(u32::try_from(entries.len()).unwrap_or(u32::MAX));
            let (page, next) = fetch(missing.min(PAGE), token).await?;
            entries.extend(page);
            token = next;
            let full = entries.len() >= limit as usize;
            if token.is_empty() || full {
                return Ok(Self {
                    entries,
                    more: !token.is_empty(),
                });
            }
        }
    }
}
