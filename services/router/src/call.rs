//! What a caller says around its message: version, target, deadline, routing, and what is passed on.
//!
//! Both bindings bring it as headers (gRPC metadata are HTTP/2 headers), so it is read once, here.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use muster_a2a::service::check_version;
use muster_api::extension::{EPOCH_METADATA, ROUTING, STEP_KEY_METADATA, TARGET_METADATA};
use muster_rpc::deadline::{self, Deadline};
use muster_runtime::trust::Access;
use muster_runtime::trust::caller::ON_BEHALF_OF;
use prost_types::Struct;

use crate::error::Error;
use crate::routing::Routing;
use crate::target::Target;

pub use muster_a2a::SUPPORTED_VERSION;
pub use muster_a2a::service::{EXTENSIONS, VERSION};

/// Headers that reach the agent as the caller sent them, and the one that names the caller as the gate has understood it.
const PASSED_ON: [HeaderName; 6] = [
    EXTENSIONS,
    ON_BEHALF_OF,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static(STEP_KEY_METADATA),
    HeaderName::from_static(EPOCH_METADATA),
];

/// What a caller says around its message.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who calls: the key that no two callers share.
    pub caller: String,
    /// What the caller may reach and see.
    pub access: Access,
    /// Whom the call is for, if it says so.
    pub target: Option<Target>,
    /// When it came in, on the monotonic clock.
    pub received: Duration,
    /// When the caller gives up, if it says so.
    pub deadline: Option<Deadline>,
    /// What it wants beyond a target.
    pub routing: Routing,
    /// Headers for the agent.
    pub passed_on: HeaderMap,
}

impl Call {
    /// Reads what the headers say. `path` is the target in the URL's path, `metadata` are the places where the
    /// routing extension may stand.
    ///
    /// # Errors
    /// Names the header or field at fault.
    pub fn read<'a>(
        headers: &HeaderMap,
        path: Option<&str>,
        tenant: &str,
        metadata: impl IntoIterator<Item = Option<&'a Struct>>,
        access: Access,
        now: Duration,
    ) -> Result<Self, Error> {
        Self::read_with(headers, path, tenant, || Routing::read(metadata), access, now)
    }

    /// The same where the routing extension's value is at hand, encoded.
    ///
    /// # Errors
    /// Names the header or field at fault.
    pub fn read_encoded(
        headers: &HeaderMap,
        tenant: &str,
        routing: Option<&[u8]>,
        access: Access,
        now: Duration,
    ) -> Result<Self, Error> {
        let routing = || routing.map_or_else(|| Ok(Routing::default()), Routing::decode);
        Self::read_with(headers, None, tenant, routing, access, now)
    }

    fn read_with(
        headers: &HeaderMap,
        path: Option<&str>,
        tenant: &str,
        routing: impl FnOnce() -> Result<Routing, Error>,
        access: Access,
        now: Duration,
    ) -> Result<Self, Error> {
        check_version(headers).map_err(|version| Error::VersionNotSupported { version })?;
        let named = text(headers, &HeaderName::from_static(TARGET_METADATA))?;
        let routing = routing()?;
        let mut target = Target::from_places(path, tenant, named)?;
        if target.is_none()
            && let [skill] = routing.skills.as_slice()
        {
            target = Some(Target::parse(
                &format!("skill:{skill}"),
                &format!("metadata[\"{ROUTING}\"].skills"),
            )?);
        }
        Ok(Self {
            caller: access.caller().key().as_ref().to_owned(),
            access,
            target,
            received: now,
            deadline: deadline_in(headers, now)?,
            routing,
            passed_on: passed_on(headers),
        })
    }

    /// When a call with one answer must have ended, and no later than `most` from its arrival.
    #[must_use]
    pub fn deadline_or(&self, default: Duration, most: Duration) -> Deadline {
        self.deadline
            .unwrap_or_else(|| Deadline::after(self.received, default))
            .earlier(Deadline::after(self.received, most))
    }

    /// When the message must have reached an agent, if it has a time to live.
    #[must_use]
    pub fn expiry(&self) -> Option<Deadline> {
        self.routing.ttl.map(|ttl| Deadline::after(self.received, ttl))
    }
}

fn deadline_in(headers: &HeaderMap, now: Duration) -> Result<Option<Deadline>, Error> {
    let Some(value) = text(headers, &HeaderName::from_static(deadline::HEADER))? else {
        return Ok(None);
    };
    match deadline::parse(value) {
        Ok(allowed) => Ok(Some(Deadline::after(now, allowed))),
        Err(error) => Err(Error::InvalidField {
            field: deadline::HEADER.to_owned(),
            message: error.to_string(),
        }),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Error> {
    headers
        .get(name)
        .map(HeaderValue::to_str)
        .transpose()
        .map_err(|_| Error::InvalidField {
            field: name.to_string(),
            message: "is not plain ASCII text".to_owned(),
        })
}

/// The headers that reach the agent as the caller sent them.
pub(crate) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in PASSED_ON {
        for value in headers.get_all(&name) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

#[cfg(test)]
mod tests {
    use muster_runtime::trust::Caller;

    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<Call, Error> {
        let mut headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        headers
            .entry(VERSION)
            .or_insert(HeaderValue::from_static(SUPPORTED_VERSION));
        Call::read(&headers, None, "", [], Access::of(Caller::anybody()), NOW)
    }

    #[test]
    fn headers_are_read_and_only_the_named_ones_are_passed_on() {
        let call = read(&[
            ("a2a-version", "1.0"),
            ("muster-target", "weather"),
            ("grpc-timeout", "5S"),
            ("traceparent", "00-1-2-01"),
            ("muster-step-key", "k"),
            ("muster-epoch", "7"),
            ("a2a-extensions", "urn:x"),
            ("authorization", "Bearer secret"),
            ("cookie", "c"),
        ])
        .unwrap();
        assert_eq!(call.target, Some(Target::Agent("weather".to_owned())));
        assert_eq!(call.deadline, Some(Deadline::after(NOW, Duration::from_secs(5))));
        let mut passed: Vec<_> = call.passed_on.keys().map(HeaderName::as_str).collect();
        passed.sort_unstable();
        assert_eq!(
            passed,
            ["a2a-extensions", "muster-epoch", "muster-step-key", "traceparent"]
        );
    }

    #[test]
    fn another_version_is_refused() {
        let refused = read(&[("a2a-version", "0.3")]);
        assert!(matches!(refused, Err(Error::VersionNotSupported { version }) if version == "0.3"));
    }

    #[test]
    fn a_malformed_timeout_names_its_header() {
        let refused = read(&[("grpc-timeout", "soon")]);
        assert!(matches!(refused, Err(Error::InvalidField { field, .. }) if field == "grpc-timeout"));
    }

    #[test]
    fn the_callers_deadline_counts_up_to_a_limit_and_the_default_where_there_is_none() {
        let (default, most) = (Duration::from_secs(300), Duration::from_secs(3600));
        let left = |pairs| {
            read(pairs)
                .unwrap()
                .deadline_or(default, most)
                .remaining(NOW)
                .unwrap()
                .as_secs()
        };
        assert_eq!(left(&[]), 300);
        assert_eq!(left(&[("grpc-timeout", "500S")]), 500);
        assert_eq!(left(&[("grpc-timeout", "99H")]), 3600);
    }
}
