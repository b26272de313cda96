//! Payloads in an object store that speaks S3.
//!
//! An object is `PREFIX/RUN/CREATED/SPAN/DIGEST`; the numbers are in hexadecimal digits of fixed length, so that the objects of a
//! run are listed in order. Objects are written once and never changed. What is there is not sent again: a look at the object is
//! cheaper than the object.
//!
//! An object store that does not answer, or refuses, is [`Error::Unavailable`]: runs wait and go on, and [`Bucket::keep_asking`]
//! finds out when. Only what answers and does not have an object is damaged.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, FuturesUnordered, StreamExt as _, TryStreamExt as _};
use muster_runtime::Shutdown;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path;
use object_store::{ClientOptions, Error as Refused, ObjectStore as _, ObjectStoreExt as _, RetryConfig};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Digest, Payload, Payloads, Room};
use crate::config;
use crate::outbound;
use crate::store::Error;

/// Objects that are written or looked at together.
const AT_ONCE: usize = 4;

/// A request is sent again so many times where the object store says that it may be.
const MOST_RETRIES: usize = 3;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often an object store is asked that did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Larger ones are none of ours: a step of a run takes less.
const LARGEST: u64 = 64 << 20;

/// What an object store is asked for to see whether it answers; no object is called so.
const PROBE: &str = "probe";

/// Why an object store cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[error("engine.payloads{key}: {what}")]
pub struct Unusable {
    key: &'static str,
    what: String,
}

impl Unusable {
    fn new(key: &'static str, what: impl ToString) -> Self {
        let what = what.to_string();
        Self { key, what }
    }
}

/// Payloads in a bucket of an object store.
pub struct Bucket {
    store: AmazonS3,
    /// For people.
    name: String,
    prefix: Path,
    /// Why it could not be used the last time.
    failing: Mutex<Option<String>>,
    failed: Notify,
}

/// Connects with the certificates and the cryptography of everything else.
struct Connector(reqwest::Client);

impl fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

impl Bucket {
    /// The bucket that the settings name. Reads files; nothing is asked of the object store.
    ///
    /// # Errors
    /// A file cannot be read, or what the settings say cannot be used.
    pub fn open(settings: &config::Payloads) -> Result<Self, Unusable> {
        let answer_within = Duration::from_secs(settings.answer_within_seconds);
        let tls = outbound::tls(settings.certificate_authorities.as_deref())
            .map_err(|error| Unusable::new("", error))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT.min(answer_within))
            .timeout(answer_within)
            .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Unusable::new("", error))?;
        let mut builder = match settings.keys().map_err(|(key, what)| Unusable::new(key, what))? {
            Some((id, secret)) => AmazonS3Builder::new()
                .with_access_key_id(id)
                .with_secret_access_key(secret),
            None => AmazonS3Builder::from_env(),
        };
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let store = builder
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_allow_http(settings.allow_http)
            // Not all that speak S3 know the other way.
            .with_disable_bulk_delete(true)
            .with_retry(RetryConfig {
                max_retries: MOST_RETRIES,
                retry_timeout: answer_within,
                ..RetryConfig::default()
            })
            .with_http_connector(Connector(client))
            .build()
            .map_err(|error| Unusable::new("", error))?;
        let prefix = Path::parse(&settings.prefix).map_err(|error| Unusable::new(".prefix", error))?;
        Ok(Self {
            store,
            name: format!("s3://{}", settings.bucket),
            prefix,
            failing: Mutex::default(),
            failed: Notify::new(),
        })
    }

    /// Whether it could be used the last time, else why not.
    ///
    /// # Errors
    /// Why not.
    pub fn health(&self) -> Result<(), String> {
        self.failing.lock().clone().map_or(Ok(()), Err)
    }

    /// Asks whether it answers, so that [`Self::health`] knows.
    ///
    /// # Errors
    /// It does not.
    pub async fn probe(&self) -> Result<(), Error> {
        let path = self.prefix.clone().join(PROBE);
        self.found(self.store.head(&path).await).map(|_| ())
    }

    /// While it does not answer, asks it from time to time, until the service stops.
    pub(crate) async fn keep_asking(&self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.requested() => return,
                () = self.failed.notified() => {}
            }
            while self.health().is_err() {
                tokio::select! {
                    biased;
                    () = shutdown.requested() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
                if self.probe().await.is_ok() {
                    tracing::info!(bucket = self.name, "the object store answers again");
                }
            }
        }
    }

    fn of_run(&self, room: &Room) -> Path {
        let path = self.prefix.clone().join(room.run.as_str());
        path.join(format!("{:016x}", room.created_micros))
    }

    fn path(&self, room: &Room, digest: &Digest) -> Path {
        let path = self.of_run(room).join(format!("{:016x}", room.span));
        path.join(digest.as_str())
    }

    /// What was found, if anything; and whether it answers at all.
    fn found<T>(&self, answer: Result<T, Refused>) -> Result<Option<T>, Error> {
        let found = match answer {
            Ok(found) => Some(found),
            Err(Refused::NotFound { .. }) => None,
            Err(error) => return Err(self.unavailable(&error)),
        };
        *self.failing.lock() = None;
        Ok(found)
    }

    fn unavailable(&self, error: &dyn std::error::Error) -> Error {
        let why = format!(
            "the object store {}: {}; see engine.payloads",
            self.name,
            described(error)
        );
        if self.failing.lock().replace(why.clone()).is_none() {
            tracing::warn!(
                why,
                "payloads cannot be read or written; runs that need them wait"
            );
        }
        self.failed.notify_one();
        Error::Unavailable(why)
    }

    async fn put(&self, room: &Room, payload: &Payload) -> Result<(), Error> {
        let path = self.path(room, &payload.digest);
        let there = self.found(self.store.head(&path).await)?;
        if there.is_some_and(|object| object.size == payload.text.len() as u64) {
            return Ok(());
        }
        let bytes = payload.text.clone().into_bytes();
        match self.found(self.store.put(&path, bytes.into()).await)? {
            Some(_) => Ok(()),
            None => Err(self.unavailable(&std::io::Error::other("there is no such bucket"))),
        }
    }
}

/// The span of an object of a run.
fn span(of_run: &Path, object: &Path) -> Option<u64> {
    let mut parts = object.prefix_match(of_run)?;
    u64::from_str_radix(parts.next()?.as_ref(), 16).ok()
}

/// With what is behind it, which is what tells.
fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    // Answers of servers have lines.
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[async_trait]
impl Payloads for Bucket {
    async fn put_payloads(&self, room: &Room, payloads: &[Payload]) -> Result<(), Error> {
        let mut puts = FuturesUnordered::new();
        for payload in payloads {
            if puts.len() >= AT_ONCE {
                puts.try_next().await?;
            }
            puts.push(self.put(room, payload));
        }
        puts.try_collect().await
    }

    async fn payload(&self, room: &Room, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(room, digest);
        let Some(object) = self.found(self.store.get(&path).await)? else {
            return Ok(None);
        };
        if object.meta.size > LARGEST {
            let at = self.payload_place(room, digest);
            let size = object.meta.size;
            return Err(Error::Damaged(format!(
                "{at} has {size} bytes, which is none of ours"
            )));
        }
        let bytes = object.bytes().await;
        Ok(self.found(bytes)?.map(|bytes| bytes.to_vec()))
    }

    async fn forget_payloads(&self, room: &Room, except: &[Digest]) -> Result<(), Error> {
        let of_run = self.of_run(room);
        let stays = |object: &Path| {
            let name = object.filename().unwrap_or_default();
            span(&of_run, object).is_none_or(|span| room.spares(span, name, except))
        };
        let mut listed = self.store.list(Some(&of_run));
        let mut gone = Vec::new();
        while let Some(object) = self.found(listed.try_next().await)?.flatten() {
            if !stays(&object.location) {
                gone.push(Ok(object.location));
            }
        }
        let mut deleted = self.store.delete_stream(stream::iter(gone).boxed());
        while let Some(deletion) = deleted.next().await {
            // One that is gone already is what was wanted.
            self.found(deletion)?;
        }
        Ok(())
    }

    fn payload_place(&self, room: &Room, digest: &Digest) -> String {
        format!("{}/{}", self.name, self.path(room, digest))
    }
}

/// Shared by the store that uses it and the task that asks after it.
pub(crate) async fn open(settings: &config::Payloads) -> Result<Option<Arc<Bucket>>, Unusable> {
    if settings.store == config::Keeper::Same {
        return Ok(None);
    }
    let settings = settings.clone();
    let bucket = crate::off_thread::off_thread(move || Bucket::open(&settings)).await?;
    // It may come later than this engine.
    let _ = bucket.probe().await;
    Ok(Some(Arc::new(bucket)))
}

#[cfg(test)]
mod tests {
    use muster_testkit::FakeBucket;

    use super::*;
    use crate::store::memory::Memory;
    use crate::store::payloads::Apart;
    use crate::store::payloads::conformance;
    use crate::store::{self, Store as _};

    fn settings(fake: &FakeBucket) -> config::Payloads {
        config::Payloads {
            store: config::Keeper::S3,
            bucket: FakeBucket::NAME.to_owned(),
            endpoint: Some(fake.endpoint()),
            prefix: "fleet/one".to_owned(),
            access_key_id: Some(FakeBucket::KEY_ID.to_owned()),
            secret_access_key: Some("hush".to_owned()),
            allow_http: true,
            answer_within_seconds: 1,
            ..config::Payloads::default()
        }
    }

    #[tokio::test]
    async fn keeps_payloads_as_everyone_must() {
        let fake = FakeBucket::start().await;
        let bucket = Arc::new(Bucket::open(&settings(&fake)).unwrap());
        conformance::check_keeper(&*bucket, &Memory::default()).await;
        assert_eq!(fake.objects().len(), 0, "{:?}", fake.objects().keys());
        conformance::check_apart(Arc::new(Memory::default()), Some(bucket)).await;
        assert!(fake.objects().keys().all(|key| key.starts_with("fleet/one/")));
        let puts = fake.requests();
        let mut puts: Vec<_> = puts.iter().filter(|request| request.starts_with("PUT")).collect();
        let all = puts.len();
        puts.sort_unstable();
        puts.dedup();
        assert_eq!(all, puts.len(), "what is there is not sent again");
    }

    #[tokio::test]
    async fn one_that_does_not_answer_is_unavailable_and_asked_until_it_does() {
        let fake = FakeBucket::start().await;
        let bucket = Arc::new(Bucket::open(&settings(&fake)).unwrap());
        let store = Apart::new(Arc::new(Memory::default()), Some(Arc::clone(&bucket)), 1_024);
        let (mut record, summary) = store::conformance::run("waits", 1);
        record.input = "x".repeat(5_000).into();
        fake.fail(true);
        let refused = store.create_run(&record, &summary).await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
        for part in ["s3://payloads", "engine.payloads"] {
            assert!(refused.to_string().contains(part), "{refused}");
        }
        assert_eq!(store.record(&record.id).await.unwrap(), None);
        assert_eq!(store.health(), Ok(()), "others go on");
        assert!(store.takes_steps().unwrap_err().contains("s3://payloads"));

        let shutdown = Shutdown::new();
        let mut asking = tokio::task::JoinSet::new();
        let asked = Arc::clone(&bucket);
        let until = shutdown.clone();
        asking.spawn(async move { asked.keep_asking(until).await });
        fake.fail(false);
        muster_testkit::wait_for("the bucket to be well", Duration::from_secs(20), async || {
            bucket.health()
        })
        .await;
        store.create_run(&record, &summary).await.unwrap();
        fake.fail(true);
        let unread = store.record(&record.id).await.unwrap_err();
        assert!(matches!(unread, Error::Unavailable(_)), "{unread}");
        fake.fail(false);
        assert_eq!(store.record(&record.id).await.unwrap(), Some(record.clone()));
        fake.change(|objects| {
            for bytes in objects.values_mut() {
                bytes[7] ^= 1;
            }
        });
        let altered = store.record(&record.id).await.unwrap_err().to_string();
        assert!(
            altered.contains("is not what was written (s3://payloads/fleet/one/waits/"),
            "{altered}"
        );
        shutdown.trigger();
        asking.join_next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_it_refuses_is_said_and_no_damage() {
        let fake = FakeBucket::start().await;
        let wrong = [
            config::Payloads {
                access_key_id: Some("AKIAOTHER".into()),
                ..settings(&fake)
            },
            config::Payloads {
                bucket: "other".into(),
                ..settings(&fake)
            },
        ];
        let room = Room::of(&store::conformance::run("r", 1).1);
        for settings in wrong {
            let bucket = Bucket::open(&settings).unwrap();
            let put = bucket.put_payloads(&room, &[Payload::new("1".into())]).await;
            assert!(matches!(put, Err(Error::Unavailable(_))), "{put:?}");
        }
        let absent = config::Payloads {
            secret_access_key: None,
            secret_access_key_file: Some("/absent".into()),
            ..settings(&fake)
        };
        let error = Bucket::open(&absent).err().unwrap().to_string();
        assert!(
            error.starts_with("engine.payloads.secret_access_key_file: /absent: "),
            "{error}"
        );
    }

    #[tokio::test]
    async fn without_the_bucket_that_it_is_in_a_payload_is_asked_for_by_name() {
        let fake = FakeBucket::start().await;
        let bucket = Arc::new(Bucket::open(&settings(&fake)).unwrap());
        let memory = Memory::default();
        let store = Apart::new(Arc::new(memory.clone()), Some(bucket), 1_024);
        let (mut record, summary) = store::conformance::run("moved", 1);
        record.input = "x".repeat(5_000).into();
        store.create_run(&record, &summary).await.unwrap();
        let without = Apart::new(Arc::new(memory.clone()), None, 1_024);
        let error = without.record(&record.id).await.unwrap_err();
        assert!(
            error.to_string().contains("set engine.payloads as it was"),
            "{error}"
        );
        // What was written inside is found there, whatever the settings say now.
        let (mut other, summary) = store::conformance::run("inside", 1);
        other.input = "y".repeat(5_000).into();
        without.create_run(&other, &summary).await.unwrap();
        assert_eq!(store.record(&other.id).await.unwrap(), Some(other));
    }
}
