//! Tokens of each algorithm, with keys that OpenSSL has made; those of RS256, which is verified and not signed with here, it has signed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_jose::key::{self, Private, Public};
use muster_jose::token::{Expected, Keys, Refusal, Signer, verify};
use serde_json::{Value, json};

/// What OpenSSL answers to this.
fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut running = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    running.stdin.take().unwrap().write_all(input).unwrap();
    let ended = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "openssl {arguments:?}: {said}");
    ended.stdout
}

fn generated(directory: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let path = directory.join(name);
    let arguments = [&["genpkey"], arguments, &["-out", path.to_str().unwrap()]].concat();
    openssl(&arguments, b"");
    path
}

/// The modulus of a key of RSA.
fn modulus(key: &Path) -> Vec<u8> {
    let said = openssl(&["rsa", "-noout", "-modulus", "-in", key.to_str().unwrap()], b"");
    let said = String::from_utf8(said).unwrap();
    let digits = said.trim().trim_start_matches("Modulus=").as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn claims() -> Value {
    json!({ "sub": "ada", "iss": "us", "aud": "muster", "exp": 2_000_000_000 })
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token of RS256.
fn rs256(key: &Path, header: &Value) -> String {
    let input = format!("{}.{}", encoded(header), encoded(&claims()));
    let signature = openssl(
        &["dgst", "-sha256", "-sign", key.to_str().unwrap()],
        input.as_bytes(),
    );
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn outcome(token: &str, public: &[Public]) -> Result<String, Refusal> {
    let expected = Expected {
        issuers: &["us".to_owned()],
        audiences: &["muster".to_owned()],
        leeway: 60,
        now: 1_700_000_000,
    };
    let keys = Keys { public, secret: None };
    verify(token, keys, &expected).map(|verified| verified.subject)
}

#[test]
fn each_algorithm_is_verified_with_its_own_key_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let ed25519 = generated(directory.path(), "ed25519.pem", &["-algorithm", "ed25519"]);
    let p256 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let p256 = generated(directory.path(), "p256.pem", &p256);
    let rsa = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    let rsa = generated(directory.path(), "rsa.pem", &rsa);

    let mut set = Vec::new();
    let mut tokens = Vec::new();
    for (path, algorithm) in [(&ed25519, "EdDSA"), (&p256, "ES256")] {
        let private = Private::read(path).unwrap();
        assert_eq!(private.algorithm(), algorithm);
        set.extend(private.key_set(algorithm)["keys"].as_array().unwrap().clone());
        let signer = Signer::Key(private, algorithm.to_owned());
        tokens.push((algorithm, signer.sign(&claims()).unwrap()));
    }
    set.push(
        json!({ "kty": "RSA", "kid": "RS256", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode(modulus(&rsa)) }),
    );
    tokens.push((
        "RS256",
        rs256(&rsa, &json!({ "alg": "RS256", "typ": "JWT", "kid": "RS256" })),
    ));
    let all = key::key_set(&json!({ "keys": set }).to_string()).unwrap();
    assert_eq!(all.len(), 3);

    for (algorithm, token) in &tokens {
        assert_eq!(outcome(token, &all), Ok("ada".to_owned()), "{algorithm}");
        let (head, signature) = token.rsplit_once('.').unwrap();
        let (_, payload) = head.split_once('.').unwrap();
        // Whatever else the header says that it is, it is not; and another's key has not signed it.
        for other in ["EdDSA", "ES256", "RS256"]
            .into_iter()
            .filter(|other| other != algorithm)
        {
            let header = encoded(&json!({ "alg": other, "kid": algorithm }));
            let forged = format!("{header}.{payload}.{signature}");
            assert_eq!(
                outcome(&forged, &all),
                Err(Refusal::Algorithm(other.to_owned())),
                "{algorithm}"
            );
            let header = encoded(&json!({ "alg": other, "kid": other }));
            let forged = format!("{header}.{payload}.{signature}");
            assert_eq!(outcome(&forged, &all), Err(Refusal::Signature), "{algorithm}");
        }
        let mut changed = URL_SAFE_NO_PAD.decode(signature).unwrap();
        changed[7] ^= 1;
        let forged = format!("{head}.{}", URL_SAFE_NO_PAD.encode(changed));
        assert_eq!(outcome(&forged, &all), Err(Refusal::Signature), "{algorithm}");
    }
    // No longer signed over what it says now.
    let (_, token) = &tokens[2];
    let mut parts = token.split('.');
    let (head, _, signature) = (parts.next().unwrap(), parts.next(), parts.next().unwrap());
    let other = encoded(&json!({ "sub": "root", "iss": "us", "aud": "muster", "exp": 2_000_000_000 }));
    assert_eq!(
        outcome(&format!("{head}.{other}.{signature}"), &all),
        Err(Refusal::Signature)
    );
}

#[test]
fn a_key_of_rsa_that_is_too_short_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let rsa = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
    let rsa = generated(directory.path(), "rsa.pem", &rsa);
    let set = json!({ "keys": [
        { "kty": "RSA", "kid": "short", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode(modulus(&rsa)) },
    ]});
    let token = rs256(&rsa, &json!({ "alg": "RS256", "kid": "short" }));
    let taken = key::key_set(&set.to_string()).map(|keys| outcome(&token, &keys));
    assert!(!matches!(taken, Ok(Ok(_))), "{taken:?}");
}
