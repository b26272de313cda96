//! Headers that say something about a call: on whose behalf it is, how long it may take, in which trace it is, whom it is for. What is
//! read is written and read again as the same.
//!
//! The input is one text, which stands in all of them.

use muster_router::target::Target;
use muster_rpc::deadline;
use muster_runtime::trace;
use muster_runtime::trust::Caller;

/// See the module.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(caller) = Caller::from_text(text) {
        let again = Caller::from_text(&caller.to_text());
        // One that is longer as we write it is none.
        if let Ok(again) = again {
            assert_eq!(again, caller);
        }
        assert!(!caller.is_anybody() && !caller.is_unknown(), "{caller:?}");
    }
    if let Ok(allowed) = deadline::parse(text) {
        let again = deadline::parse(&deadline::format(allowed)).expect("what we write is one");
        assert!(again <= allowed, "{text}: {again:?} is longer than {allowed:?}");
    }
    let (parent, state) = text.split_once('\n').unwrap_or((text, ""));
    let place = trace::parsed(parent, Some(state));
    if let Some((parent, state)) = trace::texts(&place) {
        let again = trace::parsed(&parent, state.as_deref());
        assert_eq!(again.trace_id(), place.trace_id());
        assert_eq!(again.span_id(), place.span_id());
    }
    if let Ok(target) = Target::parse(text, "muster-target") {
        assert_eq!(target.to_string(), text);
    }
}
