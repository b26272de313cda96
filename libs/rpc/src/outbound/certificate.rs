//! The certificate that is shown to a server of the world that wants to know who calls it (mutual TLS).
//!
//! Which one is asked for anew with each handshake, so that what the operator replaces is shown from the next connection on. Sessions
//! are not resumed there, because a resumed one would go on with the certificate that was shown before.

use std::fmt;
use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

/// A certificate, those between it and its authority, and its key.
#[derive(Clone)]
pub struct Certificate(Arc<CertifiedKey>);

impl Certificate {
    /// From a text in PEM that has the certificate first, those of authorities after it, and the private key anywhere.
    ///
    /// # Errors
    /// Says what is wrong, and nothing of what is in the text.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let chain = chain.map_err(|_| "it has a certificate that cannot be read")?;
        if chain.is_empty() {
            return Err("it has no certificate in PEM".to_owned());
        }
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| "it has no private key in PEM beside the certificate")?;
        let certified = CertifiedKey::from_der(chain, key, &default_provider());
        let certified =
            certified.map_err(|error| format!("its key is not good for its certificate: {error}"))?;
        Ok(Self(Arc::new(certified)))
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Certificate(redacted)")
    }
}

/// Who knows which certificate is to be shown.
pub trait Present: Send + Sync + 'static {
    /// The one for the next handshake; none where there is none.
    fn certificate(&self) -> Option<Certificate>;
}

/// The same way of speaking TLS, with a certificate where the server wants one.
pub(super) fn presenting(tls: &ClientConfig, present: Arc<dyn Present>) -> ClientConfig {
    let mut tls = tls.clone();
    tls.client_auth_cert_resolver = Arc::new(Resolver(present));
    tls.resumption = Resumption::disabled();
    tls
}

struct Resolver(Arc<dyn Present>);

impl fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Resolver")
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.certificate().map(|certificate| certificate.0)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
