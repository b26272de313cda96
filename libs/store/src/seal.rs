//! Encryption of what a database holds: each value by itself, with XChaCha20-Poly1305.
//!
//! **What is encrypted** is every value, where the database is opened with [`Keys`]. Keys of entries stay plain, because they are
//! searched in order: whoever has the files sees names, such as ids of runs, and when and how much is written, but not what. An
//! empty value says nothing and stays empty.
//!
//! **A value belongs to its place.** Keyspace and key are authenticated with it, so a value that was moved or altered cannot be
//! read. Each has a fresh random nonce; with 24 bytes no counter is needed, and none can be set back by a restored backup. What is
//! not noticed is a value that is replaced by an older one of the same key, or by a plain one as long as plain ones are read (see
//! below): who can write to the files can do that.
//!
//! **Keys change.** The first key writes; any of them reads. A new key is put before the old ones, which must stay: values are
//! encrypted anew only when they are written. Which keys a database needs is written in the keyspace [`KEYSPACE`], as the id of
//! each and something encrypted with it, so that a missing or a wrong key is found when the database is opened, and not later in
//! the middle of something.
//!
//! **A plain database that is opened with keys** reads what is plain and encrypts what it writes; it cannot be opened without keys
//! from then on. Backups copy values as they are, and with them what says which keys they need.
//!
//! ```text
//! value = FF "sealed" 01, length of the key's id:u8, id, nonce (24 bytes), ciphertext, tag (16 bytes)
//! ```
//!
//! No plain value of ours begins so: they are JSON or numbers. Rejected: encrypting files (the engine writes and merges them, and
//! knows no such layer), and one nonce that counts (see above).

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::Rng as _;

use crate::Error;

/// What is needed to open the database.
pub(crate) const KEYSPACE: &str = "sealed";

/// What a sealed value begins with.
const MARK: [u8; 8] = *b"\xffsealed\x01";

const NONCE_BYTES: usize = 24;

/// Length of a key.
const KEY_BYTES: usize = 32;

/// Longest id of a key.
const LONGEST_ID: usize = 64;

/// Largest file of keys.
const LARGEST_FILE: usize = 64 * 1024;

/// What is encrypted with each key, to know it again.
const KNOWN: &[u8] = b"this key";

/// Keys by which values are encrypted and read. The first one writes.
#[derive(Clone)]
pub struct Keys {
    first: Key,
    others: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: String,
    cipher: XChaCha20Poly1305,
}

/// Why a text holds no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// There is none.
    #[error(
        "holds no key; write a line with an id, a space and 32 random bytes in base64, as `echo 2026 $(openssl rand -base64 32)` prints it"
    )]
    None,
    /// It is longer than any such file.
    #[error("is longer than {LARGEST_FILE} bytes; name a file with a key in each line")]
    TooLong,
    /// A line is none.
    #[error(
        "line {0}: must be an id of 1 to {LONGEST_ID} letters, digits, '-', '_' and '.', a space, and 32 bytes in base64"
    )]
    Line(usize),
    /// An id is there twice.
    #[error("line {0}: the id '{1}' is there twice; each key needs its own")]
    Twice(usize, String),
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_list()
            .entries(self.all().map(|key| &key.id))
            .finish()
    }
}

impl Keys {
    /// Keys, one in each line: an id, a space, and 32 bytes in base64. Empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// A line is no key, there is none, or an id is there twice. What the lines hold is not repeated.
    pub fn parse(text: &str) -> Result<Self, BadKeys> {
        if text.len() > LARGEST_FILE {
            return Err(BadKeys::TooLong);
        }
        let mut keys: Vec<Key> = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = Key::parse(line).ok_or(BadKeys::Line(number))?;
            if keys.iter().any(|known| known.id == key.id) {
                return Err(BadKeys::Twice(number, key.id));
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or(BadKeys::None)?;
        Ok(Self {
            first,
            others: keys.collect(),
        })
    }

    fn all(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The id of the key that writes.
    #[must_use]
    pub fn writing(&self) -> &str {
        &self.first.id
    }

    /// Something encrypted with the key that writes, to know it again.
    #[must_use]
    pub fn known(&self) -> Vec<u8> {
        self.seal(KEYSPACE, self.first.id.as_bytes(), KNOWN)
    }

    /// Whether these have the key of this id that a store needs, by what [`Self::known`] has made of it.
    #[must_use]
    pub fn knows(&self, id: &[u8], known: &[u8]) -> bool {
        self.open(KEYSPACE, id, known) == Ok(Some(KNOWN.to_vec()))
    }

    /// The value as it is stored under this key of a keyspace, or of another kind of place.
    ///
    /// # Panics
    /// When the value is longer than the 256 GiB that the cipher takes.
    #[must_use]
    pub fn seal(&self, keyspace: &str, key: &[u8], value: &[u8]) -> Vec<u8> {
        if value.is_empty() {
            return Vec::new();
        }
        let mut nonce = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let about = about(keyspace, key);
        let payload = Payload {
            msg: value,
            aad: &about,
        };
        let Key { id, cipher } = &self.first;
        let encrypted = cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a value is shorter than the 256 GiB that the cipher takes");
        let length = u8::try_from(id.len()).expect("ids are bounded");
        [&MARK, &[length][..], id.as_bytes(), &nonce, &encrypted].concat()
    }

    /// Whether keys, these or others, have made this value.
    #[must_use]
    pub fn have_sealed(stored: &[u8]) -> bool {
        stored.starts_with(&MARK)
    }

    /// The value that is stored; nothing where it is stored as it is.
    ///
    /// # Errors
    /// What is wrong with it: it was made with another key, for another place, or is damaged.
    pub fn open(&self, keyspace: &str, key: &[u8], stored: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let Some(sealed) = stored.strip_prefix(&MARK) else {
            return Ok(None);
        };
        let torn = || "it is cut off".to_owned();
        let (length, rest) = sealed.split_first().ok_or_else(torn)?;
        let (id, rest) = rest.split_at_checked((*length).into()).ok_or_else(torn)?;
        let (nonce, encrypted) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(torn)?;
        let found = self.all().find(|known| known.id.as_bytes() == id);
        let found = found.ok_or_else(|| format!("there is no key '{}'", id.escape_ascii()))?;
        let about = about(keyspace, key);
        let payload = Payload {
            msg: encrypted,
            aad: &about,
        };
        let opened = found.cipher.decrypt(&XNonce::from(*nonce), payload);
        let opened = opened.map_err(|_| format!("it is not what key '{}' has written there", found.id))?;
        Ok(Some(opened))
    }
}

/// The value that is stored under this key of a keyspace; nothing where it is stored as it is. An error says all that is wrong.
pub(crate) fn opened(
    keys: Option<&Keys>,
    keyspace: &str,
    key: &[u8],
    stored: &[u8],
) -> Result<Option<Vec<u8>>, String> {
    let Some(keys) = keys else { return Ok(None) };
    keys.open(keyspace, key, stored).map_err(|what| {
        format!(
            "key {} of '{keyspace}' cannot be decrypted: {what}",
            key.escape_ascii()
        )
    })
}

/// Where a value belongs. Names of keyspaces are ours and have no NUL.
fn about(keyspace: &str, key: &[u8]) -> Vec<u8> {
    [keyspace.as_bytes(), b"\0", key].concat()
}

impl Key {
    fn parse(line: &str) -> Option<Self> {
        let (id, encoded) = line.split_once(char::is_whitespace)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if id.len() > LONGEST_ID || !id.bytes().all(plain) {
            return None;
        }
        let bytes = BASE64_STANDARD.decode(encoded.trim()).ok()?;
        let bytes: [u8; KEY_BYTES] = bytes.try_into().ok()?;
        Some(Self {
            id: id.to_owned(),
            cipher: XChaCha20Poly1305::new(&bytes.into()),
        })
    }
}

/// Compares what the database says that it needs with the keys that there are.
pub(crate) fn check(path: &Path, needed: &[(Vec<u8>, Vec<u8>)], keys: Option<&Keys>) -> Result<(), Error> {
    for (id, known) in needed {
        let path = path.to_owned();
        let id_text = id.escape_ascii().to_string();
        let Some(keys) = keys else {
            return Err(Error::Sealed { path, id: id_text });
        };
        if !keys.all().any(|key| key.id.as_bytes() == id.as_slice()) {
            return Err(Error::Sealed { path, id: id_text });
        }
        if !keys.knows(id, known) {
            return Err(Error::WrongKey { path, id: id_text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> String {
        BASE64_STANDARD.encode([byte; KEY_BYTES])
    }

    fn keys(ids: &[(&str, u8)]) -> Keys {
        let lines: Vec<String> = ids
            .iter()
            .map(|(id, byte)| format!("{id} {}", key(*byte)))
            .collect();
        Keys::parse(&lines.join("\n")).unwrap()
    }

    #[test]
    fn a_file_of_keys_is_read_and_each_mistake_is_named_without_its_secret() {
        let text = format!("# new\nb {}\n\n  a\t{}  \n", key(2), key(1));
        let read = Keys::parse(&text).unwrap();
        assert_eq!(read.writing(), "b");
        assert_eq!(format!("{read:?}"), r#"["b", "a"]"#);
        let one = key(1);
        let cases = [
            (String::new(), "holds no key"),
            ("# a\n".to_owned(), "holds no key"),
            (format!("a {one}\nsecret\n"), "line 2: must be"),
            (format!("a {}\n", &one[4..]), "line 1: must be"),
            (format!("a/b {one}\n"), "line 1: must be"),
            (format!("a {one}\na {one}\n"), "line 2: the id 'a' is there twice"),
            ("x".repeat(LARGEST_FILE + 1), "is longer"),
        ];
        for (text, expected) in cases {
            let error = Keys::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn any_key_reads_and_the_first_one_writes() {
        let (old, rotated, new) = (keys(&[("a", 1)]), keys(&[("b", 2), ("a", 1)]), keys(&[("b", 2)]));
        let before = old.seal("runs", b"k", b"value");
        let after = rotated.seal("runs", b"k", b"value");
        for stored in [&before, &after] {
            assert_eq!(rotated.open("runs", b"k", stored), Ok(Some(b"value".to_vec())));
        }
        assert_eq!(new.open("runs", b"k", &after), Ok(Some(b"value".to_vec())));
        assert_eq!(
            new.open("runs", b"k", &before),
            Err("there is no key 'a'".to_owned())
        );
        let wrong = keys(&[("a", 3)]);
        assert!(wrong.open("runs", b"k", &before).is_err());
        assert!(old.knows(b"a", &old.known()) && !wrong.knows(b"a", &old.known()));
        assert_ne!(before, old.seal("runs", b"k", b"value"), "nonces are fresh");
    }

    proptest! {
        #[test]
        fn a_value_is_read_where_it_was_written_and_nowhere_else(
            value: Vec<u8>, key: Vec<u8>, other: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8,
        ) {
            let keys = keys(&[("2026-01", 7)]);
            let stored = keys.seal("journals", &key, &value);
            if value.is_empty() {
                prop_assert_eq!(stored, value);
                return Ok(());
            }
            prop_assert_eq!(keys.open("journals", &key, &stored), Ok(Some(value.clone())));
            prop_assert!(keys.open("runs", &key, &stored).is_err());
            prop_assert!(key == other || keys.open("journals", &other, &stored).is_err());
            let mut altered = stored.clone();
            altered[at.index(stored.len())] ^= 1 << bit;
            prop_assert_ne!(keys.open("journals", &key, &altered), Ok(Some(value)));
            prop_assert!(keys.open("journals", &key, &stored[..at.index(stored.len())]).is_err() || at.index(stored.len()) < MARK.len());
        }
    }
}
