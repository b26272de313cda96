//! Files that say that they are backups: any bytes are taken or refused without a panic, and what is taken is passed on as it is.
//!
//! The checks in the input are put right first: what stands behind them is what is tried. That a check that is wrong is noticed, the
//! tests of `muster-store` show.

use std::path::Path;

use muster_store::backup;
use sha2::{Digest as _, Sha256};

/// Bytes before the first block.
const HEAD: usize = 12;

/// See the module.
pub fn run(bytes: &[u8]) {
    let file = checked(bytes);
    let mut copied = Vec::new();
    let (from, to) = (Path::new("fuzzed"), Path::new("copied"));
    if let Ok(summary) = backup::copy(file.as_slice(), from, &mut copied, to) {
        assert_eq!(copied, file);
        assert_eq!(summary.bytes, file.len() as u64);
        assert!(summary.keyspaces.is_sorted_by(|(one, _), (other, _)| one < other));
    }
}

/// The same blocks with the checks that they ought to have.
fn checked(bytes: &[u8]) -> Vec<u8> {
    let (head, mut rest) = bytes.split_at(HEAD.min(bytes.len()));
    let mut file = head.to_vec();
    while let Some((&[kind, a, b, c, d], behind)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let (content, behind) = behind.split_at(length.min(behind.len()));
        file.extend([kind, a, b, c, d]);
        file.extend(content);
        let check: [u8; 32] = Sha256::digest(&file).into();
        let of_block = if kind == b'Z' { 32 } else { 8 };
        file.extend(&check[..of_block]);
        rest = behind.get(of_block..).unwrap_or_default();
    }
    file.extend(rest);
    file
}
