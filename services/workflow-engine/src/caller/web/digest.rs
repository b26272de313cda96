//! Digest authentication (RFC 7616): the answer to a challenge. The algorithms are SHA-256 and MD5, with and without `-sess`.

use std::collections::HashMap;
use std::fmt::Write as _;

use md5::Md5;
use sha2::{Digest as _, Sha256};

use super::Outgoing;
use super::authentication::User;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Md5,
}

impl Algorithm {
    fn hash(self, text: &str) -> String {
        let bytes: Vec<u8> = match self {
            Self::Sha256 => Sha256::digest(text.as_bytes()).to_vec(),
            Self::Md5 => Md5::digest(text.as_bytes()).to_vec(),
        };
        bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
            text
        })
    }
}

struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: Algorithm,
    /// As the server wrote it.
    named: Option<String>,
    session: bool,
    /// Whether the server knows `qop`.
    qop: bool,
}

/// The header `Authorization` that answers the best of the challenges.
///
/// # Errors
/// None of them is understood.
pub fn answer<'c>(
    challenges: impl Iterator<Item = &'c str>,
    user: &User,
    outgoing: &Outgoing,
) -> Result<String, String> {
    let mut understood: Vec<Challenge> = challenges
        .flat_map(split)
        .filter_map(|text| read(&text))
        .collect();
    understood.sort_by_key(|challenge| challenge.algorithm == Algorithm::Md5);
    let challenge = understood.first().ok_or(
        "asks for no authentication by 'digest' that is known here (SHA-256 or MD5, with qop 'auth')",
    )?;
    let uri = match outgoing.url.query() {
        Some(query) => format!("{}?{query}", outgoing.url.path()),
        None => outgoing.url.path().to_owned(),
    };
    let client_nonce = uuid::Uuid::new_v4().simple().to_string();
    Ok(respond(
        challenge,
        user,
        outgoing.method.as_str(),
        &uri,
        &client_nonce,
    ))
}

fn respond(challenge: &Challenge, user: &User, method: &str, uri: &str, client_nonce: &str) -> String {
    const COUNT: &str = "00000001";
    let Challenge {
        realm,
        nonce,
        algorithm,
        ..
    } = challenge;
    let User { username, password } = user;
    let mut first = algorithm.hash(&format!("{username}:{realm}:{password}"));
    if challenge.session {
        first = algorithm.hash(&format!("{first}:{nonce}:{client_nonce}"));
    }
    let second = algorithm.hash(&format!("{method}:{uri}"));
    let response = if challenge.qop {
        algorithm.hash(&format!("{first}:{nonce}:{COUNT}:{client_nonce}:auth:{second}"))
    } else {
        algorithm.hash(&format!("{first}:{nonce}:{second}"))
    };
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut header = format!(
        "Digest username=\"{}\", realm=\"{}\", nonce=\"{}\", uri=\"{}\", response=\"{response}\"",
        quoted(username),
        quoted(realm),
        quoted(nonce),
        quoted(uri)
    );
    if let Some(named) = &challenge.named {
        header.push_str(&format!(", algorithm={named}"));
    }
    if let Some(opaque) = &challenge.opaque {
        header.push_str(&format!(", opaque=\"{}\"", quoted(opaque)));
    }
    if challenge.qop || challenge.session {
        header.push_str(&format!(", cnonce=\"{client_nonce}\""));
    }
    if challenge.qop {
        header.push_str(&format!(", qop=auth, nc={COUNT}"));
    }
    header
}

/// The challenges of one header, which may hold several: each begins with its scheme.
fn split(header: &str) -> Vec<String> {
    let mut challenges: Vec<String> = Vec::new();
    for item in items(header) {
        let item = item.trim();
        let begins = item
            .split_once(' ')
            .is_some_and(|(scheme, _)| !scheme.contains('=') && !scheme.is_empty());
        match challenges.last_mut() {
            Some(last) if !begins => {
                last.push(',');
                last.push_str(item);
            }
            _ => challenges.push(item.to_owned()),
        }
    }
    challenges
}

/// What stands between commas outside of quotes.
fn items(text: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for character in text.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                items.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = items.last_mut() {
            last.push(character);
        }
    }
    items
}

fn read(challenge: &str) -> Option<Challenge> {
    let (scheme, rest) = challenge.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("digest") {
        return None;
    }
    let mut fields: HashMap<String, String> = HashMap::new();
    for item in items(rest) {
        let Some((name, value)) = item.split_once('=') else {
            continue;
        };
        let value = value.trim();
        let value = match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
            Some(quoted) => unescaped(quoted),
            None => value.to_owned(),
        };
        fields.insert(name.trim().to_ascii_lowercase(), value);
    }
    let named = fields.remove("algorithm");
    let upper = named.as_deref().unwrap_or("MD5").to_ascii_uppercase();
    let session = upper.ends_with("-SESS");
    let algorithm = match upper.trim_end_matches("-SESS") {
        "SHA-256" => Algorithm::Sha256,
        "MD5" => Algorithm::Md5,
        _ => return None,
    };
    let qop = fields.remove("qop");
    let offers_auth = |qop: &String| {
        qop.split(',')
            .any(|word| word.trim().eq_ignore_ascii_case("auth"))
    };
    if qop.as_ref().is_some_and(|qop| !offers_auth(qop)) {
        return None;
    }
    Some(Challenge {
        realm: fields.remove("realm")?,
        nonce: fields.remove("nonce")?,
        opaque: fields.remove("opaque"),
        algorithm,
        named,
        session,
        qop: qop.is_some(),
    })
}

fn unescaped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => result.extend(characters.next()),
            other => result.push(other),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User {
            username: "Mufasa".into(),
            password: "Circle of Life".into(),
        }
    }

    /// The example of RFC 7616, section 3.9.1: one header with both algorithms.
    const BOTH: &str = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=SHA-256, \
        nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\", \
        Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=MD5, \
        nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";

    #[test]
    fn the_examples_of_the_standard_come_out() {
        let challenges = split(BOTH);
        assert_eq!(challenges.len(), 2);
        let expected = [
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            "8ca523f5e9506fed4657c9700eebdbec",
        ];
        for (challenge, expected) in challenges.iter().zip(expected) {
            let challenge = read(challenge).unwrap();
            let nonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
            let header = respond(&challenge, &user(), "GET", "/dir/index.html", nonce);
            assert!(header.contains(&format!("response=\"{expected}\"")), "{header}");
        }
    }

    #[test]
    fn challenges_that_are_not_known_are_passed_over() {
        let mixed = "Basic realm=\"a, b\", Digest realm=\"r\\\"x\", nonce=\"n\", algorithm=SHA-512-256, Digest realm=\"r\\\"x\", nonce=\"n,m\"";
        let challenges: Vec<_> = split(mixed).iter().filter_map(|text| read(text)).collect();
        assert_eq!(challenges.len(), 1);
        assert_eq!(
            (challenges[0].realm.as_str(), challenges[0].nonce.as_str()),
            ("r\"x", "n,m")
        );
        assert!(read("Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\"").is_none());
    }
}
