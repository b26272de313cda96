//! The files of a directory of certificates.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use muster_runtime::trust::SpiffeId;
use muster_runtime::trust::authority::{self, Authority, Description, Issued, Scope, describe};

use crate::failure::Failure;

/// The authorities that are trusted.
pub const BUNDLE: &str = "bundle.pem";
const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority-key.pem";

/// Keys are nobody else's; certificates are public.
const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Largest file that is read.
const MOST_BYTES: u64 = 1 << 20;

/// The file of a service's certificate.
pub fn certificate_file(service: &str) -> String {
    format!("{service}.pem")
}

/// The file of its key.
pub fn key_file(service: &str) -> String {
    format!("{service}-key.pem")
}

/// What an authority said, as a failure.
pub fn failed(error: &authority::Error) -> Failure {
    match error {
        authority::Error::Wish(_) => Failure::usage(error.to_string()).with_remedy(
            "name hosts that the authority may certify; `muster certs init` takes more with --permit-dns",
        ),
        authority::Error::Authority(_) | authority::Error::Unreadable(_) => {
            Failure::failed(error.to_string())
        }
    }
}

/// See the module.
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// One that has no authority yet.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        if Self::is_one(path) {
            return Err(
                Failure::usage(format!("{} has an authority already", path.display())).with_remedy(
                    "`muster certs rotate DIR` makes new certificates, with --authority a new authority beside it",
                ),
            );
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Whether there is one at that path.
    pub fn is_one(path: &Path) -> bool {
        path.join(AUTHORITY).exists()
    }

    /// One that has an authority.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        if !Self::is_one(path) {
            return Err(Failure::usage(format!("{} has no authority", path.display()))
                .with_remedy("`muster certs init DIR` makes one"));
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The authority that issues.
    pub fn authority(&self) -> Result<Authority, Failure> {
        let certificate = read(&self.path.join(AUTHORITY))?;
        let key = read(&self.path.join(AUTHORITY_KEY))?;
        Authority::from_pem(&certificate, &key).map_err(|error| failed(&error))
    }

    /// How long it was made for.
    pub fn authority_lifetime(&self) -> Result<Duration, Failure> {
        Ok(self.authority_described()?.lifetime())
    }

    fn authority_described(&self) -> Result<Description, Failure> {
        first(&self.path.join(AUTHORITY))
    }

    pub fn put_authority(&self, authority: &Authority) -> Result<(), Failure> {
        self.write(AUTHORITY_KEY, &authority.own().key, SECRET)?;
        self.write(AUTHORITY, &authority.own().certificate, PUBLIC)
    }

    pub fn put_bundle(&self, certificates: &[&str]) -> Result<(), Failure> {
        self.write(BUNDLE, &certificates.concat(), PUBLIC)
    }

    pub fn put(&self, service: &str, issued: &Issued) -> Result<(), Failure> {
        self.write(&key_file(service), &issued.key, SECRET)?;
        self.write(&certificate_file(service), &issued.certificate, PUBLIC)
    }

    /// Whether a service has a certificate.
    pub fn has(&self, service: &str) -> bool {
        self.path.join(certificate_file(service)).exists()
    }

    /// Who has one, by name.
    pub fn services(&self) -> Result<Vec<String>, Failure> {
        let files = certificates(&self.path)?;
        let name = |file: &PathBuf| Some(file.file_stem()?.to_str()?.to_owned());
        Ok(files
            .iter()
            .filter_map(name)
            .filter(|name| self.path.join(key_file(name)).exists() && name != "authority")
            .collect())
    }

    /// Whose certificate a service has, and what it says.
    pub fn described(&self, service: &str) -> Result<(SpiffeId, Description), Failure> {
        let path = self.path.join(certificate_file(service));
        if !path.exists() {
            return Err(
                Failure::usage(format!("'{service}' has no certificate here")).with_remedy(format!(
                    "`muster certs issue {} {service}` makes one",
                    self.path.display()
                )),
            );
        }
        let said = first(&path)?;
        let id = said.uris.first().and_then(|uri| SpiffeId::parse(uri).ok());
        let id = id.ok_or_else(|| Failure::failed(format!("{}: names no SPIFFE id", path.display())))?;
        Ok((id, said))
    }

    /// A new authority, trusted beside those before it, which issues from now on.
    pub fn new_authority(&self, lifetime: Duration, now: Timestamp) -> Result<(), Failure> {
        let old = self.authority_described()?;
        let trust_domain = self
            .services()?
            .iter()
            .find_map(|service| Some(self.described(service).ok()?.0.trust_domain().to_owned()))
            .ok_or_else(|| {
                Failure::failed("the directory has no certificate that says which trust domain this is")
            })?;
        let scope = Scope {
            dns: old.permitted_dns,
        };
        let authority =
            Authority::new(&trust_domain, &scope, lifetime, now).map_err(|error| failed(&error))?;
        let before = read(&self.path.join(BUNDLE))?;
        // Trusted first: what it issues is to be believed at once.
        self.put_bundle(&[&authority.own().certificate, &before])?;
        self.put_authority(&authority)
    }

    /// Trusts the present authority alone.
    pub fn retire(&self) -> Result<(), Failure> {
        let present = self.authority_described()?;
        for service in self.services()? {
            let (_, said) = self.described(&service)?;
            if said.issuer != present.subject {
                return Err(Failure::failed(format!(
                    "the certificate of '{service}' is of an authority before"
                ))
                .with_remedy(format!(
                    "`muster certs rotate {}` first, and give services time to read it",
                    self.path.display()
                )));
            }
        }
        let certificate = read(&self.path.join(AUTHORITY))?;
        self.put_bundle(&[&certificate])
    }

    /// In one step: a reader sees the old file or the new one.
    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), Failure> {
        let path = self.path.join(name);
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
            file.as_file()
                .set_permissions(std::fs::Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
    }
}

fn first(path: &Path) -> Result<Description, Failure> {
    let list = describe(read(path)?.as_bytes())
        .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    list.into_iter()
        .next()
        .ok_or_else(|| Failure::failed(format!("{}: holds no certificate", path.display())))
}

/// The text of a file.
pub fn read(path: &Path) -> Result<String, Failure> {
    crate::read::bounded_text(&path.display().to_string(), path, MOST_BYTES)
}

/// The files of certificates: this one, or those in this directory, in order.
pub fn certificates(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |error: std::io::Error| Failure::usage(format!("{}: {error}", path.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let holds_certificates =
            file.extension().is_some_and(|ending| ending == "pem") && !name.ends_with("-key.pem");
        if holds_certificates {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(
            Failure::usage(format!("{} holds no certificates (*.pem)", path.display()))
                .with_remedy("`muster certs init DIR` makes them"),
        );
    }
    Ok(files)
}
