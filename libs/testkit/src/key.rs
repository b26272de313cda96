//! Keys for tests, made when they are needed, so that none is in the repository.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;

/// Writes a fresh private key of Ed25519 to a file, in PEM with PKCS#8.
///
/// # Panics
/// When it cannot be made or written.
pub fn write_signing_key(path: &Path) {
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .unwrap_or_else(|error| panic!("a key for {}: {error}", path.display()));
    let text = STANDARD.encode(key.as_ref());
    std::fs::write(
        path,
        format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"),
    )
    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
