//! An authority for development: makes certificates that name workloads, and says what is in those that there are.
//!
//! It may certify host names inside of its scope alone (name constraints of X.509), so that a machine that trusts it for this trusts
//! it for no site of the world's. Addresses are not constrained: BoringSSL, and with it Envoy, refuses authorities that constrain
//! them. Nor are SPIFFE ids, by X.509 as it is verified here; services hold an authority to its own trust domain themselves.
//! Production has an authority of its own (SPIRE, cert-manager, Istio).

use std::net::IpAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::ParsedCertificate;
use serde::Serialize;
use x509_cert::Certificate;
use x509_cert::ext::pkix::name::{DirectoryString, GeneralName};
use x509_cert::ext::pkix::{BasicConstraints as IsAuthority, NameConstraints as Permitted};

use super::certificates::{names, parsed, unix_time, validity_of};
use super::spiffe::SpiffeId;

/// How much earlier than now a certificate begins to hold, for clocks that are behind.
const EARLIER: SignedDuration = SignedDuration::from_mins(1);

/// What an authority's key may be used for.
const USAGES: [KeyUsagePurpose; 2] = [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The authority's own parts are of no use.
    #[error("the authority cannot be used: {0}")]
    Authority(String),
    /// What was asked for cannot be certified.
    #[error("cannot be certified: {0}")]
    Wish(String),
    /// There is no certificate in the text.
    #[error("holds no certificate in PEM: {0}")]
    Unreadable(String),
}

/// What an authority may certify, besides SPIFFE ids and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Host names, with all below them.
    pub dns: Vec<String>,
}

impl Scope {
    /// Names that are nobody's in the world: this machine, a cluster's services.
    #[must_use]
    pub fn private() -> Self {
        Self {
            dns: ["localhost", "svc", "cluster.local"].map(str::to_owned).to_vec(),
        }
    }
}

/// A certificate that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Whose it is.
    pub id: SpiffeId,
    /// Host names.
    pub dns: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// How long it is to hold.
    pub lifetime: Duration,
}

/// A certificate and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Issued")
    }
}

/// Makes certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    own: Issued,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Authority")
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// A name of the scope is none.
    pub fn new(trust_domain: &str, scope: &Scope, lifetime: Duration, now: Timestamp) -> Result<Self, Error> {
        let broken = |error: rcgen::Error| Error::Authority(error.to_string());
        let key = KeyPair::generate().map_err(broken)?;
        // Several authorities of one domain are told apart by their names.
        let name = format!("Muster authority of {trust_domain} ({now})");
        let mut parameters = parameters(&name, lifetime, now)?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = USAGES.to_vec();
        parameters.name_constraints = Some(constraints(scope));
        let certificate = parameters.self_signed(&key).map_err(broken)?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// One that was made here before.
    ///
    /// # Errors
    /// The texts are no such certificate and its key.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, Error> {
        let broken = |error: rcgen::Error| Error::Authority(error.to_string());
        let pair = KeyPair::from_pem(key).map_err(broken)?;
        let own = Issued {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        // What an issuer has to know of itself; that it fits the certificate is checked with whatever it issues.
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = named(&name_of(certificate).map_err(Error::Authority)?);
        parameters.key_usages = USAGES.to_vec();
        let issuer = Issuer::new(parameters, pair);
        Ok(Self { issuer, own })
    }

    /// Its own certificate and key.
    #[must_use]
    pub const fn own(&self) -> &Issued {
        &self.own
    }

    /// Makes a certificate with a key of its own, for a server and a client.
    ///
    /// # Errors
    /// A name is none, or outside of what the authority may certify.
    pub fn issue(&self, wish: &Wish, now: Timestamp) -> Result<Issued, Error> {
        let wrong = |error: rcgen::Error| Error::Wish(error.to_string());
        let name = wish
            .id
            .service()
            .map_or_else(|| wish.id.as_str(), |(_, service)| service);
        let mut parameters = parameters(name, wish.lifetime, now)?;
        parameters
            .subject_alt_names
            .push(SanType::URI(wish.id.as_str().try_into().map_err(wrong)?));
        for name in &wish.dns {
            let name = name.as_str().try_into().map_err(wrong)?;
            parameters.subject_alt_names.push(SanType::DnsName(name));
        }
        let addresses = wish.addresses.iter().copied().map(SanType::IpAddress);
        parameters.subject_alt_names.extend(addresses);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(wrong)?;
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(wrong)?;
        self.check(certificate.der(), now)?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// As others will check it.
    fn check(&self, certificate: &CertificateDer<'_>, now: Timestamp) -> Result<(), Error> {
        let own = CertificateDer::from_pem_slice(self.own.certificate.as_bytes())
            .map_err(|error| Error::Authority(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        roots
            .add(own)
            .map_err(|error| Error::Authority(error.to_string()))?;
        let parsed =
            ParsedCertificate::try_from(certificate).map_err(|error| Error::Wish(error.to_string()))?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &roots,
            &[],
            unix_time(now),
            rustls::crypto::ring::default_provider()
                .signature_verification_algorithms
                .all,
        )
        .map_err(|error| {
            Error::Wish(format!(
                "{error}: a name may be outside of what the authority was made for"
            ))
        })
    }
}

fn parameters(name: &str, lifetime: Duration, now: Timestamp) -> Result<CertificateParams, Error> {
    let epoch = date_time_ymd(1970, 1, 1);
    let seconds = |time: Timestamp| Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default());
    let begin = now.checked_sub(EARLIER).unwrap_or(now);
    let end = SignedDuration::try_from(lifetime)
        .ok()
        .and_then(|lifetime| now.checked_add(lifetime).ok())
        .ok_or_else(|| Error::Wish("its end is beyond what a certificate can say".to_owned()))?;
    let mut parameters = CertificateParams::default();
    parameters.not_before = epoch + seconds(begin);
    parameters.not_after = epoch + seconds(end);
    parameters.distinguished_name = named(name);
    Ok(parameters)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// The common name in the first certificate of a text.
fn name_of(pem: &str) -> Result<String, String> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    let certificate = parsed(&certificate)?;
    let name = certificate.tbs_certificate().subject().common_name();
    match name.map_err(|error| error.to_string())? {
        Some(DirectoryString::Utf8String(name)) => Ok(name),
        _ => Err("its name is not one that is given here".to_owned()),
    }
}

fn constraints(scope: &Scope) -> NameConstraints {
    NameConstraints {
        permitted_subtrees: scope.dns.iter().cloned().map(GeneralSubtree::DnsName).collect(),
        excluded_subtrees: Vec::new(),
    }
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// Whose it is, as X.509 names it.
    pub subject: String,
    /// Who has made it.
    pub issuer: String,
    /// Its number there, in hexadecimal digits.
    pub serial: String,
    /// Its URIs; the one of a workload is its SPIFFE id.
    pub uris: Vec<String>,
    /// Host names.
    pub dns: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// From when on it holds.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// Whether it is one of an authority.
    pub is_authority: bool,
    /// Of an authority: the host names that it may certify, each with all below it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub permitted_dns: Vec<String>,
}

impl Description {
    /// How long it was made for.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        let whole = self.not_after.duration_since(self.not_before);
        whole.saturating_sub(EARLIER).try_into().unwrap_or_default()
    }
}

/// What the certificates of a text in PEM say, at least one.
///
/// # Errors
/// There is none, or one of them is damaged.
pub fn describe(pem: &[u8]) -> Result<Vec<Description>, Error> {
    let unreadable = |what: String| Error::Unreadable(what);
    let list: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(error.to_string()))?;
    if list.is_empty() {
        return Err(unreadable("there is none".to_owned()));
    }
    list.iter()
        .map(|certificate| description(certificate).map_err(unreadable))
        .collect()
}

fn description(certificate: &CertificateDer<'_>) -> Result<Description, String> {
    let certificate = parsed(certificate)?;
    let said = certificate.tbs_certificate();
    let validity = validity_of(&certificate)?;
    let is_authority = said
        .get_extension::<IsAuthority>()
        .map_err(|error| error.to_string())?
        .is_some_and(|(_, constraints)| constraints.ca);
    let mut description = Description {
        subject: said.subject().to_string(),
        issuer: said.issuer().to_string(),
        serial: said.serial_number().to_string(),
        uris: Vec::new(),
        dns: Vec::new(),
        addresses: Vec::new(),
        not_before: validity.begin,
        not_after: validity.end,
        is_authority,
        permitted_dns: Vec::new(),
    };
    for name in names(&certificate)? {
        match name {
            GeneralName::UniformResourceIdentifier(uri) => description.uris.push(uri.to_string()),
            GeneralName::DnsName(name) => description.dns.push(name.to_string()),
            GeneralName::IpAddress(bytes) => description.addresses.extend(address(bytes.as_bytes())),
            _ => {}
        }
    }
    permitted(&certificate, &mut description)?;
    Ok(description)
}

/// Adds what an authority may certify.
fn permitted(certificate: &Certificate, description: &mut Description) -> Result<(), String> {
    let constraints = certificate
        .tbs_certificate()
        .get_extension::<Permitted>()
        .map_err(|error| error.to_string())?;
    let subtrees = constraints
        .and_then(|(_, constraints)| constraints.permitted_subtrees)
        .unwrap_or_default();
    for subtree in subtrees {
        if let GeneralName::DnsName(name) = subtree.base {
            description.permitted_dns.push(name.to_string());
        }
    }
    Ok(())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    v4.or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    fn now() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }

    fn wish(dns: &[&str], addresses: &[&str]) -> Wish {
        Wish {
            id: SpiffeId::of_service("d", "n", "router").unwrap(),
            dns: dns.iter().map(|name| (*name).to_owned()).collect(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            lifetime: DAY,
        }
    }

    #[test]
    fn what_was_wished_is_in_the_certificate_and_what_is_outside_of_the_scope_is_not_made() {
        let authority = Authority::new("d", &Scope::private(), DAY * 30, now()).unwrap();
        let own = authority.own();
        let authority = Authority::from_pem(&own.certificate, &own.key).unwrap();
        let issued = authority
            .issue(
                &wish(&["router.n.svc", "localhost"], &["127.0.0.1", "::1"]),
                now(),
            )
            .unwrap();
        let [told] = describe(issued.certificate.as_bytes())
            .unwrap()
            .try_into()
            .unwrap();
        let told: Description = told;
        assert_eq!(told.uris, ["spiffe://d/ns/n/sa/router"]);
        assert_eq!(told.dns, ["router.n.svc", "localhost"]);
        assert_eq!(
            told.addresses,
            ["127.0.0.1", "::1"].map(|text| text.parse::<IpAddr>().unwrap())
        );
        assert_eq!(told.not_after.to_string(), "2030-01-02T00:00:00Z");
        assert_eq!(told.lifetime(), DAY);
        assert!(!told.is_authority && issued.key.contains("PRIVATE KEY"));
        let ca = describe(own.certificate.as_bytes()).unwrap();
        assert!(ca[0].is_authority && told.issuer == ca[0].subject, "{ca:?}");
        assert_eq!(ca[0].permitted_dns, Scope::private().dns);
        for name in ["example.com", "svc.example.com", "ä"] {
            let refused = authority.issue(&wish(&[name], &[]), now()).unwrap_err();
            assert!(matches!(refused, Error::Wish(_)), "{name} {refused}");
        }
        assert!(matches!(describe(b"x"), Err(Error::Unreadable(_))));
    }
}
