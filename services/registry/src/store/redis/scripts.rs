//! The scripts, and what all calls of those that write have in common.

use muster_store::redis::{Call, Script};
use uuid::Uuid;

use super::{ANSWERS_OUTLIVE, Redis, milliseconds};

/// A script that writes: the flags, then what all begin with, then its own part.
macro_rules! writing {
    ($flags:literal, $part:literal) => {
        Script::new(concat!(
            "#!lua",
            $flags,
            "\n",
            include_str!("prelude.lua"),
            include_str!($part)
        ))
    };
}

/// Needs room. All others are allowed in a full Redis: whoever is registered stays, and who is gone goes.
pub(super) static REGISTER: Script = writing!("", "register.lua");
pub(super) static RENEW: Script = writing!(" flags=allow-oom", "renew.lua");
pub(super) static END: Script = writing!(" flags=allow-oom", "end.lua");
pub(super) static DRAIN: Script = writing!(" flags=allow-oom", "drain.lua");
pub(super) static EXPIRE: Script = writing!(" flags=allow-oom", "expire.lua");
pub(super) static RAISE: Script = writing!(" flags=allow-oom", "raise.lua");
pub(super) static LOOK: Script = Script::new(include_str!("look.lua"));
pub(super) static PAGE: Script = Script::new(include_str!("page.lua"));

impl Redis {
    /// Begins a call that does the same when it is done twice.
    pub(super) fn writing(&self, script: &'static Script) -> Call {
        let call = self.shared.keys.all(script.call());
        self.common(call, &Uuid::new_v4().to_string())
    }

    /// Begins a call that is done once, however often it is sent.
    pub(super) fn once(&self, script: &'static Script) -> Call {
        let token = Uuid::new_v4().to_string();
        let call = self.shared.keys.all(script.call());
        let call = call.key(self.shared.keys.answered(&token));
        let kept = self.shared.connection.options().patience + ANSWERS_OUTLIVE;
        self.common(call, &token).number(milliseconds(kept))
    }

    fn common(&self, call: Call, token: &str) -> Call {
        let options = &self.shared.options;
        call.arg(token)
            .arg(Uuid::new_v4().to_string())
            .number(options.feed as u64)
            .number(milliseconds(options.terms.offline.retention))
            .number(options.terms.offline.most as u64)
    }
}
