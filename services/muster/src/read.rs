//! Files and standard input, read to a bound: a device or a pipe has no end that its size would tell.

use std::io::Read;
use std::path::Path;

use crate::failure::Failure;

/// Reads `path` (`-` is standard input), refused beyond `limit` bytes; `name` says in errors what was to be read.
pub fn bounded(name: &str, path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::usage(format!("{name}: {error}"));
    let mut bytes = Vec::new();
    let read = |reader: &mut dyn Read, bytes: &mut Vec<u8>| reader.take(limit + 1).read_to_end(bytes);
    if path == Path::new("-") {
        read(&mut std::io::stdin().lock(), &mut bytes).map_err(failed)?;
    } else {
        read(&mut std::fs::File::open(path).map_err(failed)?, &mut bytes).map_err(failed)?;
    }
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= limit) {
        Ok(bytes)
    } else {
        Err(Failure::usage(format!(
            "{name}: more than the {limit} bytes that are taken"
        )))
    }
}

/// Like [`bounded`], for text.
pub fn bounded_text(name: &str, path: &Path, limit: u64) -> Result<String, Failure> {
    String::from_utf8(bounded(name, path, limit)?)
        .map_err(|error| Failure::usage(format!("{name}: not UTF-8: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_end_is_refused_at_the_bound() {
        let failure = bounded("--file /dev/zero", Path::new("/dev/zero"), 1_000).unwrap_err();
        assert!(
            failure.message.contains("more than the 1000 bytes"),
            "{}",
            failure.message
        );
    }
}
