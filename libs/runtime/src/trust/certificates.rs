//! A service's certificate, its key, and whom it trusts: read from files, and known to fit together.
//!
//! What is here has been checked: the certificate names one workload of our trust domain, the key is the certificate's, an
//! authority of the bundle vouches for it, and it holds at this time. So a file that was replaced by half, or by a wrong one, is
//! told when it is read and never at the next handshake.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::spiffe::SpiffeId;

/// Most bytes that a file may have.
const MOST_BYTES: u64 = 1 << 20;

/// Where the parts of an identity are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and those between it and the authority, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The authorities of our own trust domain, in PEM.
    pub authorities: PathBuf,
    /// Those of others, by their trust domains.
    pub federated: BTreeMap<String, PathBuf>,
}

/// What the files hold. Its text shows nothing of it.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Vec<u8>,
    federated: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Contents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Contents")
    }
}

/// Why the files are of no use: the file, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct Error {
    path: PathBuf,
    what: String,
}

impl Error {
    fn new(path: &Path, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}

impl Files {
    /// Reads them.
    pub(super) fn read(&self) -> Result<Contents, Error> {
        Ok(Contents {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            authorities: read(&self.authorities)?,
            federated: self
                .federated
                .iter()
                .map(|(domain, path)| Ok((domain.clone(), read(path)?)))
                .collect::<Result<_, Error>>()?,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| Error::new(path, error.to_string()))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Error::new(path, format!("has more than {MOST_BYTES} bytes")));
    }
    Ok(bytes)
}

/// An identity that can be used.
pub(super) struct Material {
    /// Who we are.
    pub(super) id: SpiffeId,
    /// The certificate with its key.
    pub(super) certified: Arc<CertifiedKey>,
    /// The authorities, by the trust domains that they vouch for.
    pub(super) authorities: BTreeMap<String, Arc<RootCertStore>>,
    /// How long the certificate holds.
    pub(super) validity: Validity,
    /// When the first authority of our own ends.
    pub(super) authorities_end: Timestamp,
}

/// From when until when a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub begin: Timestamp,
    /// The last one.
    pub end: Timestamp,
}

impl Validity {
    /// Whether the end is near: less than so long away, or less than a third of the whole time where that is shorter, so that
    /// certificates of an hour are not always about to end.
    #[must_use]
    pub fn is_ending(&self, now: Timestamp, warning: Duration) -> bool {
        let whole = self.end.duration_since(self.begin).unsigned_abs();
        self.left(now) < warning.min(whole / 3)
    }

    /// How long it still holds; zero when it does not.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Duration {
        self.end.duration_since(now).try_into().unwrap_or(Duration::ZERO)
    }
}

impl Material {
    /// Reads and checks what the files hold, as of now.
    pub(super) fn parse(
        files: &Files,
        contents: &Contents,
        trust_domain: &str,
        provider: &CryptoProvider,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let wrong = |what: String| Error::new(&files.certificate, what);
        let chain = certificates(&files.certificate, &contents.certificate)?;
        let leaf = chain[0].clone();
        let id = workload(&leaf).map_err(wrong)?;
        if id.trust_domain() != trust_domain {
            return Err(wrong(format!(
                "is of {id}, which is not in the trust domain '{trust_domain}' (`trust.trust_domain`)"
            )));
        }
        let validity = validity(&leaf).map_err(wrong)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|error| Error::new(&files.key, format!("holds no private key in PEM: {error}")))?;
        let intermediates: Vec<_> = chain[1..].to_vec();
        let certified = CertifiedKey::from_der(chain, key, provider)
            .map_err(|error| Error::new(&files.key, format!("does not fit the certificate: {error}")))?;

        let (own, authorities_end) = roots(&files.authorities, &contents.authorities)?;
        let mut authorities = BTreeMap::from([(trust_domain.to_owned(), own)]);
        for (domain, bytes) in &contents.federated {
            let path = files.federated.get(domain).unwrap_or(&files.authorities);
            authorities.insert(domain.clone(), roots(path, bytes)?.0);
        }
        let leaf = ParsedCertificate::try_from(&leaf).map_err(|error| wrong(error.to_string()))?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &leaf,
            &authorities[trust_domain],
            &intermediates,
            unix_time(now),
            provider.signature_verification_algorithms.all,
        )
        .map_err(|error| {
            wrong(format!(
                "is not one that {} vouches for at this time: {error}",
                files.authorities.display()
            ))
        })?;
        Ok(Self {
            id,
            certified: Arc::new(certified),
            authorities,
            validity,
            authorities_end,
        })
    }
}

/// A time as rustls has it.
pub(super) fn unix_time(now: Timestamp) -> UnixTime {
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// The certificates of a file, at least one.
fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let list: Vec<_> = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::new(path, format!("is no PEM: {error}")))?;
    if list.is_empty() {
        return Err(Error::new(path, "holds no certificate in PEM"));
    }
    Ok(list)
}

/// The authorities of a file, and when the first of them ends.
fn roots(path: &Path, bytes: &[u8]) -> Result<(Arc<RootCertStore>, Timestamp), Error> {
    let mut store = RootCertStore::empty();
    let mut end = Timestamp::MAX;
    for certificate in certificates(path, bytes)? {
        end = end.min(validity(&certificate).map_err(|what| Error::new(path, what))?.end);
        store
            .add(certificate)
            .map_err(|error| Error::new(path, format!("holds what is no authority: {error}")))?;
    }
    Ok((Arc::new(store), end))
}

/// The one workload that a certificate names.
pub(super) fn workload(certificate: &CertificateDer<'_>) -> Result<SpiffeId, String> {
    let names = names(&parsed(certificate)?)?;
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(AsRef::<str>::as_ref(uri)),
        _ => None,
    });
    let uri = uris
        .next()
        .ok_or("the certificate names no workload (no URI among its subject alternative names)")?;
    if uris.next().is_some() {
        return Err(
            "the certificate has several URIs among its subject alternative names; SPIFFE wants one"
                .to_owned(),
        );
    }
    let id = SpiffeId::parse(uri).map_err(|error| format!("the certificate's URI '{uri}' {error}"))?;
    if id.path().is_empty() {
        return Err(format!(
            "the certificate names the trust domain {id} and no workload of it"
        ));
    }
    Ok(id)
}

fn validity(certificate: &CertificateDer<'_>) -> Result<Validity, String> {
    validity_of(&parsed(certificate)?)
}

/// From when until when a certificate holds.
pub(super) fn validity_of(certificate: &Certificate) -> Result<Validity, String> {
    let validity = certificate.tbs_certificate().validity();
    let time = |time: x509_cert::time::Time| {
        Timestamp::UNIX_EPOCH
            .checked_add(time.to_unix_duration())
            .map_err(|error| error.to_string())
    };
    Ok(Validity {
        begin: time(validity.not_before)?,
        end: time(validity.not_after)?,
    })
}

/// Its subject alternative names.
pub(super) fn names(certificate: &Certificate) -> Result<Vec<GeneralName>, String> {
    certificate
        .tbs_certificate()
        .get_extension::<SubjectAltName>()
        .map(|found| found.map(|(_, names)| names.0).unwrap_or_default())
        .map_err(|error| format!("the certificate's names cannot be read: {error}"))
}

pub(super) fn parsed(certificate: &CertificateDer<'_>) -> Result<Certificate, String> {
    Certificate::from_der(certificate).map_err(|error| format!("the certificate cannot be read: {error}"))
}
