//! What happened, in order, and a digest of it.

use jiff::Timestamp;

/// A digest that grows with what is added (FNV-1a, then mixed as in splitmix64).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    pub(crate) fn add(&mut self, text: &str) {
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn value(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    digest: Digest,
    lines: Vec<String>,
}

impl Trace {
    pub(crate) fn note(&mut self, time: Timestamp, what: &str) {
        let line = format!("{time} {what}");
        self.digest.add(&line);
        self.lines.push(line);
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest.value()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.clone()
    }
}
