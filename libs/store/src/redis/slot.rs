//! Names of keys: what must change together carries one hash tag, so that a Cluster keeps it in one slot.

/// Keys that live in one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    start: String,
}

impl Slot {
    /// That of a partition, such as `muster:{p07}:`.
    #[must_use]
    pub fn of_partition(prefix: &str, partition: u16) -> Self {
        Self {
            start: format!("{prefix}:{{p{partition:02}}}:"),
        }
    }

    /// One with a name, such as `muster:{log}:`.
    #[must_use]
    pub fn named(prefix: &str, name: &str) -> Self {
        Self {
            start: format!("{prefix}:{{{name}}}:"),
        }
    }

    /// A key in it.
    #[must_use]
    pub fn key(&self, name: &str) -> Vec<u8> {
        format!("{}{name}", self.start).into_bytes()
    }

    /// The key of one of many of a kind.
    #[must_use]
    pub fn key_of(&self, kind: &str, id: &str) -> Vec<u8> {
        format!("{}{kind}:{id}", self.start).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_carry_the_tag_of_their_slot() {
        assert_eq!(
            Slot::of_partition("muster", 7).key("lease"),
            b"muster:{p07}:lease"
        );
        assert_eq!(Slot::named("a", "log").key_of("typed", "x"), b"a:{log}:typed:x");
    }
}
