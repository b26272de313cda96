//! Semantic versions as bytes that sort as the versions do.
//!
//! The catalogue finds the newest version of a workflow by reading one key from the end of a range, in any ordered
//! store; so precedence (semver.org, section 11) has to be in the key. Comparing in memory instead would read all
//! versions for every start of a run.

/// Longest version that is taken, in bytes.
const LONGEST: usize = 128;

/// Before every other text, so that a shorter list of identifiers sorts first.
const END_OF_IDENTIFIERS: u8 = 0;
const NUMERIC: u8 = 1;
const ALPHANUMERIC: u8 = 2;
/// After every pre-release.
const RELEASE: u8 = 3;

/// The version as a sortable key; `None` if the text is not a semantic version.
#[must_use]
pub fn sort_key(version: &str) -> Option<Vec<u8>> {
    if version.len() > LONGEST {
        return None;
    }
    let (precedence, build) = match version.split_once('+') {
        Some((precedence, build)) => (precedence, Some(build)),
        None => (version, None),
    };
    let (core, prerelease) = match precedence.split_once('-') {
        Some((core, prerelease)) => (core, Some(prerelease)),
        None => (precedence, None),
    };
    let mut key = Vec::with_capacity(32);
    let mut numbers = core.split('.');
    for _ in 0..3 {
        key.extend(number(numbers.next()?)?.to_be_bytes());
    }
    if numbers.next().is_some() {
        return None;
    }
    match prerelease {
        None => key.push(RELEASE),
        Some(prerelease) => {
            for identifier in prerelease.split('.') {
                push_identifier(&mut key, identifier)?;
            }
            key.push(END_OF_IDENTIFIERS);
        }
    }
    // Builds do not count for precedence; they come last so that two builds are two keys.
    if let Some(build) = build {
        if build.split('.').any(|identifier| !is_identifier(identifier)) {
            return None;
        }
        key.extend(build.as_bytes());
    }
    Some(key)
}

fn push_identifier(key: &mut Vec<u8>, identifier: &str) -> Option<()> {
    if !is_identifier(identifier) {
        return None;
    }
    if identifier.bytes().all(|byte| byte.is_ascii_digit()) {
        key.push(NUMERIC);
        key.extend(number(identifier)?.to_be_bytes());
    } else {
        key.push(ALPHANUMERIC);
        key.extend(identifier.as_bytes());
        key.push(0);
    }
    Some(())
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Digits without a leading zero.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if digits && !leading_zero {
        text.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_the_standard_orders_versions() {
        let ascending = [
            "0.0.9",
            "0.1.0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2.0",
            "1.10.0",
            "2.0.0-0",
            "2.0.0",
            "10.0.0",
        ];
        let keys: Vec<_> = ascending
            .iter()
            .map(|version| sort_key(version).expect(version))
            .collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
    }

    #[test]
    fn builds_differ_and_what_is_no_version_has_no_key() {
        assert_ne!(sort_key("1.0.0+a"), sort_key("1.0.0+b"));
        assert!(sort_key("1.0.0+a") < sort_key("1.0.1"));
        for bad in [
            "",
            "1",
            "1.0",
            "1.0.0.0",
            "01.0.0",
            "1.0.x",
            "1.0.0-",
            "1.0.0-a..b",
            "1.0.0-01",
            "1.0.0+",
            "v1.0.0",
            "1.0.0-ä",
            "99999999999999999999.0.0",
            &format!("1.0.0-{}", "a".repeat(200)),
        ] {
            assert_eq!(sort_key(bad), None, "{bad}");
        }
    }
}
