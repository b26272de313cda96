//! The chain of digests over a journal: whether it still is what was written, and all of it.
//!
//! A [`Chain`] stands for everything up to a point. It begins with what the run is pinned to, and each entry extends it:
//! `link = SHA-256(link before, entry)`. Whoever changes, inserts, moves or leaves out an entry gets another link, and so does
//! whoever changes the document or the input under a journal.
//!
//! An entry counts by its fields, in the order of their names: what happened, when and where as it stands, and everything
//! else, which people and agents have said, by its digest alone. So [`withheld`] can take it away and leave the digests, and
//! the chain still holds. Digests are salted by the run's [`Nonce`], so that nobody finds a short value by trying, once the
//! nonce is gone too.
//!
//! Rejected: a digest over the bytes of an entry (nothing can be erased), and a tree (it proves single entries to those who
//! have only its root, which nobody asks for; a chain is extended by one digest in memory).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::secret::Nonce;

/// Fields that say what happened, when and where. Whatever is not named here counts as said by somebody.
const OUTLINE: [&str; 27] = [
    "activation",
    "approval",
    "attempt",
    "attempt_deadline",
    "child",
    "deadline",
    "done",
    "due",
    "escalated",
    "extension",
    "extensions",
    "filter",
    "format",
    "generation",
    "hears_from",
    "index",
    "iterations",
    "nextActivation",
    "parent",
    "position",
    "since",
    "stage",
    "task",
    "time",
    "to",
    "type",
    "usage",
];

/// The field of an entry that holds the digests of what was taken away.
const WITHHELD: &str = "withheld";

/// SHA-256.
type Hash = [u8; 32];

/// What stands for a journal up to a point. As text: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Chain(Hash);

/// Text that is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 64 hexadecimal digits")]
pub struct NoDigest;

/// Bytes that are no entry of a journal.
#[derive(Debug, thiserror::Error)]
#[error("is no entry of a journal: {0}")]
pub struct NoEntry(#[from] serde_json::Error);

/// An entry by its fields, none of which it has twice: readers could disagree which of the two counts.
struct Fields<'e>(BTreeMap<String, &'e RawValue>);

impl<'e> Fields<'e> {
    fn of(entry: &'e [u8]) -> Result<Self, NoEntry> {
        Ok(serde_json::from_slice(entry)?)
    }

    /// The digests of what was taken away.
    fn withheld(&self) -> Result<BTreeMap<String, Chain>, NoEntry> {
        match self.0.get(WITHHELD) {
            Some(withheld) => Ok(serde_json::from_str(withheld.get())?),
            None => Ok(BTreeMap::new()),
        }
    }
}

impl<'de: 'e, 'e> Deserialize<'de> for Fields<'e> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = BTreeMap<String, &'de RawValue>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if fields.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("'{name}' is there twice")));
                    }
                    fields.insert(name, value);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Reader).map(Self)
    }
}

impl Chain {
    /// Before the first entry, of a run that is pinned to these named things.
    #[must_use]
    pub fn begin(pinned: &[(&str, &[u8])]) -> Self {
        let mut hash = Sha256::new();
        part(&mut hash, b"muster journal 1");
        for (name, value) in pinned {
            part(&mut hash, name.as_bytes());
            part(&mut hash, value);
        }
        Self(hash.finalize().into())
    }

    /// What stands for the JSON text of a value that was said by somebody, and may be taken away.
    #[must_use]
    pub fn said(text: &[u8], nonce: &Nonce) -> Self {
        let mut hash = Sha256::new();
        part(&mut hash, nonce.as_bytes());
        part(&mut hash, text);
        Self(hash.finalize().into())
    }

    /// With one more entry.
    ///
    /// # Errors
    /// It is no entry.
    pub fn extended(self, entry: &[u8], nonce: &Nonce) -> Result<Self, NoEntry> {
        let fields = Fields::of(entry)?;
        let mut said = fields.withheld()?;
        let mut hash = Sha256::new();
        part(&mut hash, &self.0);
        for (name, value) in &fields.0 {
            if is_outline(name) {
                part(&mut hash, name.as_bytes());
                part(&mut hash, value.get().as_bytes());
            } else if name != WITHHELD {
                said.insert(name.clone(), Self::said(value.get().as_bytes(), nonce));
            }
        }
        for (name, digest) in &said {
            part(&mut hash, name.as_bytes());
            part(&mut hash, &digest.0);
        }
        Ok(Self(hash.finalize().into()))
    }
}

/// The entry without what people and agents have said; [`Chain::extended`] makes the same of both.
///
/// # Errors
/// It is no entry.
pub fn withheld(entry: &[u8], nonce: &Nonce) -> Result<Vec<u8>, NoEntry> {
    let fields = Fields::of(entry)?;
    let mut digests = fields.withheld()?;
    let mut kept: BTreeMap<&str, &RawValue> = BTreeMap::new();
    for (name, value) in &fields.0 {
        if is_outline(name) {
            kept.insert(name, value);
        } else if name != WITHHELD {
            digests.insert(name.clone(), Chain::said(value.get().as_bytes(), nonce));
        }
    }
    let digests = serde_json::value::to_raw_value(&digests)?;
    kept.insert(WITHHELD, &digests);
    Ok(serde_json::to_vec(&kept)?)
}

fn is_outline(name: &str) -> bool {
    OUTLINE.binary_search(&name).is_ok()
}

/// With its length, so that no two lists of parts are hashed as the same bytes.
fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

impl fmt::Display for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Chain({self})")
    }
}

impl FromStr for Chain {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoDigest);
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| NoDigest)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NoDigest)?;
        }
        Ok(Self(hash))
    }
}

impl TryFrom<String> for Chain {
    type Error = NoDigest;

    fn try_from(text: String) -> Result<Self, NoDigest> {
        text.parse()
    }
}

impl From<Chain> for String {
    fn from(chain: Chain) -> Self {
        chain.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn extended(entries: &[Vec<u8>], nonce: &Nonce) -> Chain {
        let beginning = Chain::begin(&[("document", b"d"), ("input", b"{}")]);
        let mut links = entries.iter();
        links
            .try_fold(beginning, |chain, entry| chain.extended(entry, nonce))
            .unwrap()
    }

    /// Entries with fields of the outline and others.
    fn entries() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let said = prop_oneof![
            any::<i32>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            Just(Value::Null),
            any::<f64>().prop_map(|number| json!([number, {"a": number}])),
        ];
        let names = prop_oneof![Just("input"), Just("output"), Just("by"), Just("anything")];
        let entry = ("[a-z]{1,4}", proptest::collection::btree_map(names, said, 0..4));
        proptest::collection::vec(entry, 1..6).prop_map(|entries| {
            let entries = entries.into_iter().enumerate();
            let bytes = entries.map(|(index, (kind, said))| {
                let mut entry = json!({"index": index, "type": kind, "task": "/do/0/a"});
                for (name, value) in said {
                    entry[name] = value;
                }
                entry.to_string().into_bytes()
            });
            bytes.collect()
        })
    }

    #[test]
    fn the_names_of_the_outline_are_in_order() {
        assert!(OUTLINE.is_sorted());
    }

    proptest! {
        #[test]
        fn what_is_withheld_leaves_the_chain_as_it_was(entries in entries(), which: prop::sample::Index) {
            let nonce = Nonce::fresh();
            let chain = extended(&entries, &nonce);
            let mut redacted = entries.clone();
            let index = which.index(entries.len());
            redacted[index] = withheld(&entries[index], &nonce).unwrap();
            prop_assert_eq!(extended(&redacted, &nonce), chain);
            let twice = withheld(&redacted[index], &Nonce::default()).unwrap();
            prop_assert_eq!(&twice, &redacted[index], "the nonce is not needed again");
            let all: Vec<_> = entries.iter().map(|entry| withheld(entry, &nonce).unwrap()).collect();
            prop_assert_eq!(extended(&all, &Nonce::default()), chain);
            for entry in all {
                let fields: BTreeMap<String, Value> = serde_json::from_slice(&entry).unwrap();
                prop_assert!(fields.keys().all(|name| name == WITHHELD || is_outline(name)));
            }
        }

        #[test]
        fn whatever_is_changed_gives_another_chain(entries in entries(), which: prop::sample::Index, change in 0..4) {
            let nonce = Nonce::fresh();
            let chain = extended(&entries, &nonce);
            let index = which.index(entries.len());
            let mut changed = entries.clone();
            match change {
                0 => { changed.remove(index); }
                1 => changed.insert(index, br#"{"index": 9, "type": "more"}"#.to_vec()),
                2 => {
                    let mut entry: Value = serde_json::from_slice(&entries[index]).unwrap();
                    entry["output"] = json!("something else that nobody said");
                    changed[index] = entry.to_string().into_bytes();
                }
                _ => {
                    let mut entry: Value = serde_json::from_slice(&entries[index]).unwrap();
                    entry["index"] = json!(1_000);
                    changed[index] = entry.to_string().into_bytes();
                }
            }
            prop_assert_ne!(extended(&changed, &nonce), chain);
        }

        #[test]
        fn a_chain_is_read_as_it_is_written(bytes: [u8; 32]) {
            let chain = Chain(bytes);
            prop_assert_eq!(chain.to_string().parse(), Ok(chain));
        }
    }

    #[test]
    fn the_beginning_and_the_salt_count() {
        let entry = br#"{"index": 0, "type": "a", "output": 1}"#;
        let (one, other) = (Nonce::fresh(), Nonce::fresh());
        let begin = |document: &[u8]| Chain::begin(&[("document", document)]);
        assert_ne!(begin(b"a"), begin(b"b"));
        assert_ne!(
            Chain::begin(&[("a", b"bc")]),
            Chain::begin(&[("ab", b"c")]),
            "where a part ends counts"
        );
        let link = |nonce| begin(b"a").extended(entry, nonce).unwrap();
        assert_ne!(link(&one), link(&other));
        assert!(begin(b"a").extended(b"[1]", &one).is_err());
        let twice = br#"{"index": 0, "output": 1, "output": 2}"#;
        let refused = begin(b"a").extended(twice, &one).unwrap_err();
        assert!(
            refused.to_string().contains("'output' is there twice"),
            "{refused}"
        );
        assert!("xyz".parse::<Chain>().is_err());
        assert!("é".repeat(32).parse::<Chain>().is_err());
    }
}
