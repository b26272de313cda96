//! A bucket of an object store on a port of its own, that speaks as much of S3 as its clients here say.
//!
//! It knows `PUT`, `GET`, `HEAD` and `DELETE` of an object, and the listing of objects in portions (`ListObjectsV2`), by path
//! (`/BUCKET/KEY`) over plain HTTP. It refuses what is not signed with its key's id, and bodies that are not what their header
//! says; it does not check signatures. A test can look at the objects, change them, and let it fail.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Objects in one answer of a listing, so that tests have several.
const LISTED: usize = 3;

/// Time of every object.
const MODIFIED: &str = "2026-01-02T03:04:05.000Z";

/// A running bucket. Dropping it closes its port.
#[derive(Debug)]
pub struct FakeBucket {
    address: SocketAddr,
    state: Arc<Mutex<Inside>>,
    _server: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Inside {
    objects: BTreeMap<String, Vec<u8>>,
    requests: Vec<String>,
    failing: bool,
}

impl FakeBucket {
    /// Name of the bucket.
    pub const NAME: &str = "payloads";
    /// The id of its access key; any secret is taken.
    pub const KEY_ID: &str = "AKIATEST";

    /// Starts an empty one.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(Mutex::new(Inside::default()));
        let routes = Router::new()
            .fallback(answer)
            .layer(axum::extract::DefaultBodyLimit::max(64 << 20))
            .with_state(Arc::clone(&state));
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, routes).await.expect("it serves");
        });
        Self {
            address,
            state,
            _server: server,
        }
    }

    /// Where it is: `http://HOST:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its objects, by key.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.inside().objects.clone()
    }

    /// Changes its objects behind everybody's back.
    pub fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) {
        change(&mut self.inside().objects);
    }

    /// Methods and paths of what it was asked, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.inside().requests.clone()
    }

    /// Lets it answer with errors, or stop to.
    pub fn fail(&self, failing: bool) {
        self.inside().failing = failing;
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        locked(&self.state)
    }
}

fn locked(state: &Mutex<Inside>) -> MutexGuard<'_, Inside> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    State(state): State<Arc<Mutex<Inside>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut inside = locked(&state);
    inside.requests.push(format!("{method} {}", uri.path()));
    if inside.failing {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    }
    let said = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let signed = format!("Credential={}/", FakeBucket::KEY_ID);
    if !said("authorization").contains(&signed) {
        return error(StatusCode::FORBIDDEN, "InvalidAccessKeyId");
    }
    let digest = said("x-amz-content-sha256");
    if method == Method::PUT && digest != "UNSIGNED-PAYLOAD" && digest != hexadecimal(&Sha256::digest(&body))
    {
        return error(StatusCode::BAD_REQUEST, "XAmzContentSHA256Mismatch");
    }
    let path = uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    if bucket != FakeBucket::NAME {
        return error(StatusCode::NOT_FOUND, "NoSuchBucket");
    }
    let entity = |bytes: &[u8]| format!("\"{}\"", hexadecimal(&Sha256::digest(bytes)));
    match method {
        Method::GET if key.is_empty() => list(&inside.objects, uri.query().unwrap_or_default()),
        Method::GET | Method::HEAD => match inside.objects.get(key) {
            // The length in an answer to HEAD is that of the body, which is left out on the way.
            Some(bytes) => {
                let headers = [
                    ("etag", entity(bytes)),
                    ("last-modified", "Fri, 02 Jan 2026 03:04:05 GMT".into()),
                ];
                (headers, bytes.clone()).into_response()
            }
            None => error(StatusCode::NOT_FOUND, "NoSuchKey"),
        },
        Method::PUT => {
            let etag = entity(&body);
            inside.objects.insert(key.to_owned(), body.to_vec());
            [("etag", etag)].into_response()
        }
        Method::DELETE => {
            inside.objects.remove(key);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => error(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
    }
}

/// Objects with a prefix, some at a time; the token is the last key of the portion before.
fn list(objects: &BTreeMap<String, Vec<u8>>, query: &str) -> Response {
    let parameter = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(given, _)| *given == name);
        found
            .map(|(_, value)| value.replace("%2F", "/"))
            .unwrap_or_default()
    };
    let (prefix, after) = (parameter("prefix"), parameter("continuation-token"));
    let mut found = objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix) && **key > after);
    let portion: Vec<_> = found.by_ref().take(LISTED).collect();
    let is_more = found.next().is_some();
    let mut answer = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult>");
    let _ = write!(answer, "<IsTruncated>{is_more}</IsTruncated>");
    if let Some((last, _)) = portion.last().filter(|_| is_more) {
        let _ = write!(answer, "<NextContinuationToken>{last}</NextContinuationToken>");
    }
    for (key, bytes) in portion {
        let size = bytes.len();
        let _ = write!(
            answer,
            "<Contents><Key>{key}</Key><LastModified>{MODIFIED}</LastModified><ETag>\"0\"</ETag><Size>{size}</Size></Contents>"
        );
    }
    answer.push_str("</ListBucketResult>");
    ([("content-type", "application/xml")], answer).into_response()
}

fn error(status: StatusCode, code: &str) -> Response {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    );
    (status, [("content-type", "application/xml")], text).into_response()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
