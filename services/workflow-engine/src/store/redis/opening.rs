//! Opening a store: what is there is looked at before anything is written.

use muster_store::redis::{Connection, OpenError, Slot, cmd};
use parking_lot::Mutex;
use std::sync::Arc;

use super::keys::slots;
use super::{Options, Redis, Shared, events};
use crate::store::Error;

/// What a store in Redis is called.
pub const FORMAT_NAME: &str = "workflow-engine";
/// Version of its keys and values; raised when older software would misread them.
pub const FORMAT_VERSION: u32 = 2;
/// The oldest version that can be used as it is. A store of such a version becomes one of this version when it is opened.
const OLDEST_VERSION: u32 = 1;

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        match error {
            Error::Damaged(what) => Self::Damaged(what),
            Error::Unavailable(_) | Error::Conflict(_) | Error::TooLarge { .. } | Error::NotOwner { .. } => {
                Self::Unavailable(error.to_string())
            }
        }
    }
}

impl Redis {
    /// Opens the store, or makes it; brings into the log what an earlier life has left in its outboxes.
    ///
    /// # Errors
    /// Redis cannot be used, or holds something else under these keys.
    pub async fn open(connection: Connection, options: Options) -> Result<Self, OpenError> {
        for risk in connection.inspect().await? {
            let address = connection.address();
            tracing::warn!(address, "acknowledged work may be lost: {risk}");
        }
        let format = check_format(&connection, &options).await?;
        let store = Self {
            shared: Arc::new(Shared {
                connection,
                options,
                format,
                fences: Mutex::default(),
                outboxes: events::Outboxes::default(),
            }),
        };
        store.begin_log().await?;
        store.relay_all().await?;
        Ok(store)
    }
}

/// Name, version and number of partitions are written once; then they are compared, and the version is raised to the one that
/// is to be written. Answers the version of the store.
async fn check_format(connection: &Connection, options: &Options) -> Result<u32, OpenError> {
    let key = Slot::named(&options.prefix, slots::STORE).key("format");
    let written = options.format.clamp(OLDEST_VERSION, FORMAT_VERSION);
    let expected = format!("{FORMAT_NAME} {written} {}", options.partitions);
    let found = connection.mark(&key, &expected).await?;
    if found == expected {
        return Ok(written);
    }
    let mut words = found.split(' ');
    let (name, version) = (
        words.next(),
        words.next().and_then(|word| word.parse::<u32>().ok()),
    );
    let same_partitions = words
        .next()
        .is_some_and(|word| word == options.partitions.to_string());
    let known = version.filter(|version| (OLDEST_VERSION..=FORMAT_VERSION).contains(version));
    if name == Some(FORMAT_NAME)
        && let Some(version) = known
        && same_partitions
    {
        // Another engine may have raised it already.
        if version < written {
            tracing::info!(from = found, to = expected, "the format is raised");
            let mut mark = cmd("SET");
            mark.arg(&key).arg(&expected);
            connection.run::<()>(&mark).await?;
        }
        return Ok(version.max(written));
    }
    let remedy = match (name, version) {
        (Some(FORMAT_NAME), Some(version)) if version > FORMAT_VERSION => {
            "run the newer version, or choose another prefix of keys"
        }
        (Some(FORMAT_NAME), Some(OLDEST_VERSION..=FORMAT_VERSION)) => {
            "the last number is that of its partitions, fixed when a store is made: open it with that number, or choose another prefix of keys"
        }
        _ => "choose another prefix of keys, or another Redis",
    };
    Err(OpenError::Foreign {
        address: connection.address().to_owned(),
        key: String::from_utf8_lossy(&key).into_owned(),
        found,
        expected,
        remedy: remedy.to_owned(),
    })
}
