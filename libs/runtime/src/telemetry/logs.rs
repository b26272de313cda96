//! What is logged: which of it, which can be changed while the process runs, and whom it is about.
//!
//! A line in JSON has `trace_id` and `span_id` where there is a span, and `run`, `task` and `agent` where the work is about one
//! ([`crate::trace::Subject`]), so that a log can be searched by what an operator has at hand.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use opentelemetry::trace::TraceContextExt as _;
use parking_lot::Mutex;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Json, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::Tasks;
use crate::clock::{SharedClock, SystemClock};
use crate::trace::{Context, Subject};

/// The longest filter, in bytes.
const LONGEST: usize = 1_024;

/// How long a change may last that is to be reverted.
const LONGEST_CHANGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

static LOGS: OnceLock<Logs> = OnceLock::new();

/// What is logged by this process.
struct Logs {
    reload: Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync>,
    configured: Mutex<String>,
    state: Mutex<Current>,
}

/// What is logged now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// The filter.
    pub filter: String,
    /// When it becomes what is configured again.
    pub reverts_at: Option<Timestamp>,
    /// Which change it comes of.
    change: u64,
}

/// Why it cannot be changed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Nobody can read the filter.
    #[error("{0}")]
    Filter(String),
    /// The time until it is reverted is out of bounds.
    #[error("must be from 1 second to {} days", LONGEST_CHANGE.as_secs() / 86_400)]
    RevertAfter,
    /// The logs were started by something else, as in tests.
    #[error("this process does not write the logs itself; change them where they are set up")]
    NotOurs,
}

/// A filter as it is used: of a plain level, the embedded store's own start-up talk is left out.
pub(super) fn parsed(filter: &str) -> Result<EnvFilter, String> {
    if filter.len() > LONGEST {
        return Err(format!(
            "is {} bytes long; at most {LONGEST} are allowed",
            filter.len()
        ));
    }
    const ALLOWED: &str = "allowed: TRACE, DEBUG, INFO, WARN, ERROR, OFF, or a filter";
    let is_one_word = !filter.contains(['=', ',', '[', ':']);
    // A filter takes any other word for the only target that is logged, so that a slip would silence everything.
    if is_one_word && filter.parse::<LevelFilter>().is_err() {
        return Err(format!("'{filter}' is no level; {ALLOWED}"));
    }
    let whole = if filter.contains(['=', ',']) {
        filter.to_owned()
    } else {
        format!("{filter},fjall=warn,lsm_tree=warn")
    };
    // The part that is ours to add is never at fault.
    EnvFilter::try_new(filter)
        .and_then(|_| EnvFilter::try_new(whole))
        .map_err(|error| format!("'{filter}': {error}; {ALLOWED}"))
}

/// The logs were started with this filter.
pub(super) fn started(
    configured: &str,
    reload: impl Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync + 'static,
) {
    let logs = Logs {
        reload: Box::new(reload),
        configured: Mutex::new(configured.to_owned()),
        state: Mutex::new(Current {
            filter: configured.to_owned(),
            reverts_at: None,
            change: 0,
        }),
    };
    let _first_wins = LOGS.set(logs);
}

/// What is logged now.
///
/// # Errors
/// The logs are not ours.
pub fn current() -> Result<Current, Error> {
    LOGS.get()
        .map(|logs| logs.state.lock().clone())
        .ok_or(Error::NotOurs)
}

/// Changes what is logged; empty: to what is configured. For so long, if that is said. What was logged before, and what is now.
///
/// # Errors
/// See [`Error`].
pub fn change(
    filter: &str,
    revert_after: Option<Duration>,
    clock: &SharedClock,
    tasks: &Tasks,
) -> Result<(String, Current), Error> {
    let logs = LOGS.get().ok_or(Error::NotOurs)?;
    if revert_after.is_some_and(|after| after < Duration::from_secs(1) || after > LONGEST_CHANGE) {
        return Err(Error::RevertAfter);
    }
    let filter = if filter.is_empty() {
        logs.configured.lock().clone()
    } else {
        filter.to_owned()
    };
    let (previous, current) = logs.set(&filter, revert_after, clock).map_err(Error::Filter)?;
    tracing::info!(
        previous,
        filter,
        reverts_at = current.reverts_at.map(tracing::field::display),
        "what is logged was changed"
    );
    if let Some(after) = revert_after {
        let (change, clock) = (current.change, clock.clone());
        tasks.spawn("revert the log level", async move {
            tokio::time::sleep(after).await;
            // A later change has its own time.
            if logs.state.lock().change == change {
                let configured = logs.configured.lock().clone();
                if let Err(what) = logs.set(&configured, None, &clock) {
                    tracing::warn!(what, "what is logged cannot be reverted");
                }
            }
        });
    }
    Ok((previous, current))
}

/// What is configured has changed, and is used from now on, whatever was asked for meanwhile.
///
/// # Errors
/// See [`Error`].
pub(crate) fn configure(filter: &str) -> Result<(), Error> {
    let logs = LOGS.get().ok_or(Error::NotOurs)?;
    let clock: SharedClock = Arc::new(SystemClock::default());
    logs.set(filter, None, &clock).map_err(Error::Filter)?;
    filter.clone_into(&mut logs.configured.lock());
    Ok(())
}

impl Logs {
    fn set(
        &self,
        filter: &str,
        revert_after: Option<Duration>,
        clock: &SharedClock,
    ) -> Result<(String, Current), String> {
        let parsed = parsed(filter)?;
        let mut state = self.state.lock();
        (self.reload)(parsed).map_err(|error| error.to_string())?;
        let previous = std::mem::replace(&mut state.filter, filter.to_owned());
        state.change += 1;
        state.reverts_at = revert_after.and_then(|after| clock.now().checked_add(after).ok());
        Ok((previous, state.clone()))
    }
}

/// The lines of JSON, with whom they are about.
pub(super) struct Identified(pub(super) Format<Json>);

impl<S, N> FormatEvent<S, N> for Identified
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let told = Context::map_current(identifiers);
        if told.is_empty() {
            return self.0.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&with(&line, &told))
    }
}

/// What the current context says.
fn identifiers(context: &Context) -> Vec<(&'static str, String)> {
    let mut told = Vec::new();
    let span = context.span();
    let place = span.span_context();
    if place.is_valid() {
        told.push(("trace_id", place.trace_id().to_string()));
        told.push(("span_id", place.span_id().to_string()));
    }
    if let Some(subject) = context.get::<Subject>() {
        let named = [
            ("run", &subject.run),
            ("task", &subject.task),
            ("agent", &subject.agent),
        ];
        told.extend(
            named
                .into_iter()
                .filter_map(|(key, value)| Some((key, value.as_deref()?.to_owned()))),
        );
    }
    told
}

/// A line of JSON with these fields more, but for those that it has already.
fn with(line: &str, told: &[(&'static str, String)]) -> String {
    let Some(open) = line.trim_end().strip_suffix('}') else {
        return line.to_owned();
    };
    let mut line = open.to_owned();
    for (key, value) in told {
        let key = format!("\"{key}\":");
        // Within a text, the quotes would be escaped.
        if !open.contains(&key) {
            let value = serde_json::Value::from(value.as_str());
            line.push_str(&format!(",{key}{value}"));
        }
    }
    line.push_str("}\n");
    line
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use opentelemetry::trace::TraceContextExt as _;

    use super::*;
    use crate::trace::{about, parsed as place};

    #[test]
    fn lines_say_what_the_context_does_and_nothing_twice() {
        let context = about(Subject {
            run: Some(Arc::from("order-\"7\"")),
            agent: Some(Arc::from("weather")),
            ..Subject::default()
        });
        let span = place("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None);
        let told = identifiers(&context.with_remote_span_context(span));
        let line = with(
            "{\"level\":\"INFO\",\"agent\":\"planning\",\"message\":\"\\\"run\\\":\"}\n",
            &told,
        );
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            line,
            serde_json::json!({
                "level": "INFO", "agent": "planning", "message": "\"run\":", "run": "order-\"7\"",
                "trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331",
            })
        );
        assert!(identifiers(&Context::new()).is_empty());
    }

    #[test]
    fn filters_are_checked() {
        assert!(parsed("debug").is_ok() && parsed("info,muster_router=debug").is_ok());
        for wrong in ["LOUD", "muster_router=loud", &"x".repeat(2_000)] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
