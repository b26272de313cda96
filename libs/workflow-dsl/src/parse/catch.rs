//! `try`, `catch` and retry policies.

use super::Reader;
use super::cursor::{Cursor, Fields};
use super::task::List;
use crate::document::{
    Backoff, Catch, ErrorFilter, Jitter, Kind, LONGEST_DELAY, MOST_RETRIES, Period, Retry, RetryLimit, Try,
};
use crate::duration::spoken;
use crate::node::Content;

/// Name of the variable that holds a caught error.
pub(super) const DEFAULT_VARIABLE: &str = "error";

impl Reader {
    /// `try` and its `catch`.
    pub(super) fn attempt(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let tasks = self
            .require(fields, "try")
            .and_then(|tasks| self.tasks(&tasks, List::Sequence));
        let catch = self.require(fields, "catch").and_then(|catch| self.catch(&catch));
        Some(Kind::Try(Box::new(Try {
            tasks: tasks?,
            catch: catch?,
        })))
    }

    fn catch(&mut self, at: &Cursor<'_>) -> Option<Catch> {
        let fields = self.fields(at, &["errors", "as", "when", "exceptWhen", "retry", "do"])?;
        let errors = match fields.get("errors") {
            Some(errors) => self.error_filter(&errors),
            None => Some(ErrorFilter::default()),
        };
        let variable = match fields.get("as") {
            Some(name) => self.variable(&name),
            None => Some(DEFAULT_VARIABLE.to_owned()),
        };
        let named = variable.clone().unwrap_or_else(|| DEFAULT_VARIABLE.to_owned());
        self.with_variables([named], |reader| {
            let when = fields.get("when").map(|when| reader.expression_field(&when));
            let except_when = fields
                .get("exceptWhen")
                .map(|when| reader.expression_field(&when));
            let retry = fields.get("retry").map(|retry| reader.retry(&retry));
            let tasks = fields.get("do").map(|tasks| reader.tasks(&tasks, List::Sequence));
            Some(Catch {
                errors: errors?,
                variable: variable?,
                when: given(when)?,
                except_when: given(except_when)?,
                retry: given(retry)?,
                tasks: given(tasks)?,
            })
        })
    }

    /// A retry policy, written here or defined in `use.retries`.
    fn retry(&mut self, at: &Cursor<'_>) -> Option<Retry> {
        match &at.node.content {
            Content::Text(name) => self.reused_retry(at, name),
            _ => self.inline_retry(at),
        }
    }

    pub(super) fn inline_retry(&mut self, at: &Cursor<'_>) -> Option<Retry> {
        let fields = self.fields(at, &["when", "exceptWhen", "delay", "backoff", "limit", "jitter"])?;
        let when = fields.get("when").map(|when| self.expression_field(&when));
        let except_when = fields.get("exceptWhen").map(|when| self.expression_field(&when));
        let delay = fields.get("delay").map(|delay| self.delay(&delay));
        let backoff = fields.get("backoff").map(|backoff| self.backoff(&backoff));
        let limit = fields.get("limit").map(|limit| self.limit(&limit));
        let jitter = fields.get("jitter").map(|jitter| self.jitter(&jitter));
        let limit = given(limit)?.unwrap_or_default();
        if limit.attempts.is_none() && limit.duration.is_none() {
            let message = "nothing but a timeout, or 1,000 of them, ends these retries; add limit.attempt.count or limit.duration";
            self.doubtful(at, message);
        }
        let retry = Retry {
            when: given(when)?,
            except_when: given(except_when)?,
            delay: given(delay)?.unwrap_or_default(),
            backoff: given(backoff)?.unwrap_or(Backoff::Constant),
            limit,
            jitter: given(jitter)?,
        };
        self.doubt_pauses(&retry, at);
        self.doubt_duration(&retry, at);
        Some(retry)
    }

    /// What is waited before a retry, which has a bound.
    fn delay(&mut self, at: &Cursor<'_>) -> Option<Period> {
        let delay = self.duration(at)?;
        if let Some(fixed) = delay.fixed()
            && fixed > LONGEST_DELAY
        {
            let message = format!(
                "the delay before a retry is at most {}, to which {} is cut; take a shorter one, or wait in 'catch.do'",
                spoken(LONGEST_DELAY),
                spoken(fixed)
            );
            self.doubtful(at, message);
        }
        Some(delay)
    }

    /// Warns where the number of retries that a policy has at most ends them before its duration does.
    fn doubt_duration(&mut self, retry: &Retry, at: &Cursor<'_>) {
        let (None, Some(duration), Some(delay)) = (
            retry.limit.attempts,
            retry.limit.duration.as_ref().and_then(Period::fixed),
            retry.delay.fixed(),
        ) else {
            return;
        };
        let longest = delay.saturating_mul(MOST_RETRIES);
        if retry.backoff == Backoff::Constant
            && retry.jitter.is_none()
            && !delay.is_zero()
            && longest < duration
        {
            let message = format!(
                "10,000 retries end before the limit.duration of {} does: they take {} if attempts fail at once; take a longer delay",
                spoken(duration),
                spoken(longest)
            );
            self.doubtful(at, message);
        }
    }

    fn backoff(&mut self, at: &Cursor<'_>) -> Option<Backoff> {
        const KINDS: [(&str, Backoff); 3] = [
            ("constant", Backoff::Constant),
            ("linear", Backoff::Linear),
            ("exponential", Backoff::Exponential),
        ];
        let fields = self.fields(at, &KINDS.map(|(name, _)| name))?;
        let given: Vec<_> = KINDS.into_iter().filter(|(name, _)| fields.has(name)).collect();
        let [(name, backoff)] = given.as_slice() else {
            self.wrong(
                at,
                "a backoff is one of {constant: {}}, {linear: {}} and {exponential: {}}",
            );
            return None;
        };
        let settings = self.require(&fields, name)?;
        let settings = self.object(&settings)?;
        for (name, setting) in settings.iter() {
            self.wrong_name(
                &setting,
                format!(
                    "the language defines no settings of a backoff; remove {}",
                    crate::problem::quoted(name)
                ),
            );
        }
        settings.entries.is_empty().then_some(*backoff)
    }

    fn limit(&mut self, at: &Cursor<'_>) -> Option<RetryLimit> {
        let fields = self.fields(at, &["attempt", "duration"])?;
        let duration = fields.get("duration").map(|duration| self.duration(&duration));
        let mut limit = RetryLimit::default();
        if let Some(attempt) = fields.get("attempt") {
            let fields = self.fields(&attempt, &["count", "duration"])?;
            let count = fields.get("count").map(|count| {
                self.integer(&count, 1, u64::from(MOST_RETRIES))
                    .and_then(|count| u32::try_from(count).ok())
            });
            let duration = fields.get("duration").map(|duration| self.duration(&duration));
            limit.attempts = given(count)?;
            limit.attempt_duration = given(duration)?;
        }
        limit.duration = given(duration)?;
        Some(limit)
    }

    fn jitter(&mut self, at: &Cursor<'_>) -> Option<Jitter> {
        let fields = self.fields(at, &["from", "to"])?;
        let from = self
            .require(&fields, "from")
            .and_then(|from| self.duration(&from));
        let to = self.require(&fields, "to").and_then(|to| self.delay(&to));
        let (from, to) = (from?, to?);
        if let (Some(from), Some(to)) = (from.fixed(), to.fixed())
            && from > to
        {
            self.wrong(at, "'from' of a jitter must not be above its 'to'");
            return None;
        }
        Some(Jitter { from, to })
    }
}

/// Turns what was read of a field around: the outer `None` is a field that is wrong, the inner one a field that is
/// not there.
#[expect(clippy::option_option, reason = "the two ways of being absent are the point")]
pub(super) fn given<T>(field: Option<Option<T>>) -> Option<Option<T>> {
    match field {
        None => Some(None),
        Some(None) => None,
        Some(Some(value)) => Some(Some(value)),
    }
}
