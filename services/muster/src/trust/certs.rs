//! `muster certs`: an authority and certificates for development.
//!
//! A directory holds all of it: the authority that issues (`authority.pem`, `authority-key.pem`), the authorities that services trust
//! (`bundle.pem`), and for each service `NAME.pem` and `NAME-key.pem`. Files are replaced in one step, keys before certificates, so
//! that services which read them again take up whole ones; a pair that does not fit together yet is looked at again.
//!
//! An authority is replaced in three steps, between which services are given time to read: `rotate --authority` makes a new one, which
//! is trusted beside the old; `rotate` issues by the new one; `rotate --retire` trusts the old one no longer, and refuses as long as
//! a certificate in the directory is of it.

mod directory;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_runtime::trust::SpiffeId;
use muster_runtime::trust::authority::{Authority, Description, Scope, Wish, describe};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::Output;

use directory::failed;
pub use directory::{BUNDLE, Directory, certificate_file, key_file};

/// Who gets a certificate at the beginning: the services, by their names, and the command line.
pub const EVERYBODY: [&str; 9] = [
    "registry",
    "router",
    "workflow-engine",
    "weather",
    "planning",
    "customer-service",
    "data-analysis",
    "security-monitor",
    OPERATOR,
];

/// The trust domain and the namespace that are those of the defaults of the section `trust`.
pub const TRUST_DOMAIN: &str = "cluster.local";
pub const NAMESPACE: &str = "agent-system";

/// The command line's own name.
pub const OPERATOR: &str = "muster";

const DAY: u64 = 24 * 3_600;

/// `muster certs …`
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Make an authority for development, and a certificate for each service.
    Init(InitArguments),
    /// Make a certificate for one more service.
    Issue(IssueArguments),
    /// Put new certificates in the place of old ones, which stay valid to their end, or replace the authority step by step.
    Rotate(RotateArguments),
    /// Say whose certificates are in a file or directory, for which names, and when they end.
    Inspect {
        /// A file in PEM, or a directory with such files.
        path: PathBuf,
    },
}

/// What certificates are to say.
#[derive(Debug, Args)]
pub struct Names {
    /// A host name more; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub dns: Vec<String>,
    /// An address more; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Vec<IpAddr>,
    /// How many days they hold.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=3_650))]
    pub days: u64,
}

/// Arguments of `muster certs init`.
#[derive(Debug, Args)]
pub struct InitArguments {
    /// The directory to make; it must have no authority yet.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// The trust domain, as in `trust.trust_domain`.
    #[arg(long, default_value = TRUST_DOMAIN)]
    pub trust_domain: String,
    /// The namespace, as in `trust.namespace`.
    #[arg(long, default_value = NAMESPACE)]
    pub namespace: String,
    /// What every certificate says.
    #[command(flatten)]
    pub names: Names,
    /// How many days the authority holds.
    #[arg(long, default_value_t = 1_825, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    pub authority_days: u64,
    /// A domain in which it may certify host names, besides localhost, svc and cluster.local; may be repeated.
    #[arg(long, value_name = "DOMAIN")]
    pub permit_dns: Vec<String>,
}

impl Names {
    /// Those of this machine alone.
    pub const fn here() -> Self {
        Self {
            dns: Vec::new(),
            ip: Vec::new(),
            days: 90,
        }
    }
}

impl InitArguments {
    /// What is made where nothing else is said.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            trust_domain: TRUST_DOMAIN.to_owned(),
            namespace: NAMESPACE.to_owned(),
            names: Names::here(),
            authority_days: 1_825,
            permit_dns: Vec::new(),
        }
    }
}

/// Arguments of `muster certs issue`.
#[derive(Debug, Args)]
pub struct IssueArguments {
    /// The directory that `muster certs init` has made.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// The service's name, which is its service account's.
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// The namespace; default: that of the others.
    #[arg(long)]
    pub namespace: Option<String>,
    /// What it is to say.
    #[command(flatten)]
    pub names: Names,
}

/// Arguments of `muster certs rotate`.
#[derive(Debug, Args)]
pub struct RotateArguments {
    /// The directory that `muster certs init` has made.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Whose certificates; default: all.
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
    /// How many days new ones hold; default: as long as the old ones.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    pub days: Option<u64>,
    /// Make a new authority, trusted beside the old; what is issued from now on is of it.
    #[arg(long, conflicts_with_all = ["retire", "services"])]
    pub authority: bool,
    /// Trust the authorities before the present one no longer.
    #[arg(long, conflicts_with = "services")]
    pub retire: bool,
}

/// Runs `muster certs …`.
pub fn run(command: CertsCommand, output: &Output) -> Result<(), Failure> {
    let now = SystemClock::default().now();
    match command {
        CertsCommand::Init(arguments) => {
            init(&arguments, now)?;
            tell(&arguments.directory, now, output)?;
            next_steps(&arguments.directory, output);
            Ok(())
        }
        CertsCommand::Issue(arguments) => issue(&arguments, now, output),
        CertsCommand::Rotate(arguments) => rotate(&arguments, now, output),
        CertsCommand::Inspect { path } => tell(&path, now, output),
    }
}

/// Makes the directory with an authority and everybody's certificates.
pub fn init(arguments: &InitArguments, now: Timestamp) -> Result<(), Failure> {
    let directory = Directory::create(&arguments.directory)?;
    let mut scope = Scope::private();
    scope.dns.extend(arguments.permit_dns.iter().cloned());
    // Before anything is written: a name that is none is told first.
    let wishes = EVERYBODY
        .into_iter()
        .map(|service| {
            wish(
                &arguments.trust_domain,
                &arguments.namespace,
                service,
                &arguments.names,
            )
        })
        .collect::<Result<Vec<_>, _>>()?;
    let lifetime = Duration::from_secs(arguments.authority_days * DAY);
    let authority =
        Authority::new(&arguments.trust_domain, &scope, lifetime, now).map_err(|error| failed(&error))?;
    let issued = wishes
        .iter()
        .map(|wish| authority.issue(wish, now).map_err(|error| failed(&error)))
        .collect::<Result<Vec<_>, _>>()?;
    directory.put_authority(&authority)?;
    directory.put_bundle(&[&authority.own().certificate])?;
    for (service, issued) in EVERYBODY.into_iter().zip(&issued) {
        directory.put(service, issued)?;
    }
    Ok(())
}

fn wish(trust_domain: &str, namespace: &str, service: &str, names: &Names) -> Result<Wish, Failure> {
    let id = SpiffeId::of_service(trust_domain, namespace, service).map_err(|error| {
        Failure::usage(format!(
            "'{service}' in namespace '{namespace}' of '{trust_domain}' makes no SPIFFE id: it {error}"
        ))
    })?;
    let mut dns = vec![
        "localhost".to_owned(),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
    ];
    dns.extend(names.dns.iter().cloned());
    let mut addresses = vec![
        IpAddr::from(std::net::Ipv4Addr::LOCALHOST),
        IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
    ];
    addresses.extend(&names.ip);
    Ok(Wish {
        id,
        dns,
        addresses,
        lifetime: Duration::from_secs(names.days * DAY),
    })
}

fn issue(arguments: &IssueArguments, now: Timestamp, output: &Output) -> Result<(), Failure> {
    add(arguments, now)?;
    let certificate = certificate_file(&arguments.service);
    tell(&arguments.directory.join(certificate), now, output)
}

/// Makes a certificate for one more service.
pub fn add(arguments: &IssueArguments, now: Timestamp) -> Result<(), Failure> {
    let directory = Directory::open(&arguments.directory)?;
    let authority = directory.authority()?;
    if directory.has(&arguments.service) {
        return Err(
            Failure::usage(format!("'{}' has a certificate already", arguments.service)).with_remedy(
                format!(
                    "`muster certs rotate {} {}` makes a new one",
                    arguments.directory.display(),
                    arguments.service
                ),
            ),
        );
    }
    // All of one directory are of one trust domain, and by default of one namespace.
    let known = directory.services()?;
    let like = known
        .iter()
        .find_map(|service| {
            let (id, _) = directory.described(service).ok()?;
            let (namespace, _) = id.service()?;
            Some((id.trust_domain().to_owned(), namespace.to_owned()))
        })
        .ok_or_else(|| {
            Failure::failed("the directory has no certificate that says which trust domain this is")
        })?;
    let (trust_domain, namespace) = like;
    let namespace = arguments.namespace.clone().unwrap_or(namespace);
    let wish = wish(&trust_domain, &namespace, &arguments.service, &arguments.names)?;
    let issued = authority.issue(&wish, now).map_err(|error| failed(&error))?;
    directory.put(&arguments.service, &issued)
}

fn rotate(arguments: &RotateArguments, now: Timestamp, output: &Output) -> Result<(), Failure> {
    let directory = Directory::open(&arguments.directory)?;
    if arguments.authority {
        let lifetime = directory.authority_lifetime()?;
        let lifetime = arguments
            .days
            .map_or(lifetime, |days| Duration::from_secs(days * DAY));
        directory.new_authority(lifetime, now)?;
    } else if arguments.retire {
        directory.retire()?;
    } else {
        let services = if arguments.services.is_empty() {
            directory.services()?
        } else {
            arguments.services.clone()
        };
        reissue(&directory, &services, arguments.days, now)?;
    }
    tell(directory.path(), now, output)
}

/// New certificates for everybody who has one in a directory.
pub fn renew(path: &Path, now: Timestamp) -> Result<(), Failure> {
    let directory = Directory::open(path)?;
    reissue(&directory, &directory.services()?, None, now)
}

/// New certificates for these, with what the old ones say.
fn reissue(
    directory: &Directory,
    services: &[String],
    days: Option<u64>,
    now: Timestamp,
) -> Result<(), Failure> {
    let authority = directory.authority()?;
    for service in services {
        let (id, said) = directory.described(service)?;
        let lifetime = days.map_or_else(|| said.lifetime(), |days| Duration::from_secs(days * DAY));
        let wish = Wish {
            id,
            dns: said.dns,
            addresses: said.addresses,
            lifetime,
        };
        let issued = authority.issue(&wish, now).map_err(|error| failed(&error))?;
        directory.put(service, &issued)?;
    }
    Ok(())
}

/// Says what certificates are there.
fn tell(path: &Path, now: Timestamp, output: &Output) -> Result<(), Failure> {
    let files = directory::certificates(path)?;
    let mut found = Vec::new();
    for file in files {
        let text = directory::read(&file)?;
        match describe(text.as_bytes()) {
            Ok(list) => found.extend(list.into_iter().map(|said| (file.clone(), said))),
            Err(error) => return Err(Failure::failed(format!("{}: {error}", file.display()))),
        }
    }
    if output.is_json() {
        let list: Vec<Value> = found.iter().map(|(file, said)| shown(file, said, now)).collect();
        output.json(&json!({ "certificates": list }));
        return Ok(());
    }
    let rows = found
        .iter()
        .map(|(file, said)| {
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let who = said.uris.first().unwrap_or(&said.subject).clone();
            let addresses = said.addresses.iter().map(ToString::to_string);
            let names: Vec<String> = said.dns.iter().cloned().chain(addresses).collect();
            [name, who, names.join(" "), ending(said, now)]
        })
        .collect();
    output.table(["FILE", "WHOSE", "NAMES", "ENDS"], rows);
    Ok(())
}

fn ending(said: &Description, now: Timestamp) -> String {
    let left = said.not_after.duration_since(now);
    if left.is_negative() {
        return format!("{} (has ended)", said.not_after);
    }
    let days = left.as_secs() / (DAY.cast_signed());
    format!("{} (in {days} days)", said.not_after)
}

fn shown(file: &Path, said: &Description, now: Timestamp) -> Value {
    let mut value = json!(said);
    value["file"] = json!(file);
    value["secondsLeft"] = json!(said.not_after.duration_since(now).as_secs());
    value["spiffeId"] = json!(said.uris.iter().find(|uri| SpiffeId::parse(uri).is_ok()));
    value
}

fn next_steps(path: &Path, output: &Output) {
    if output.is_json() {
        return;
    }
    let path = path.display();
    output.line("a service uses them with");
    output.line(&format!(
        "  --set trust.mode=native --set trust.native.certificate={path}/SERVICE.pem --set trust.native.key={path}/SERVICE-key.pem \
         --set trust.native.authorities={path}/{BUNDLE}"
    ));
    output.line(&format!(
        "and this command line with --certificates {path}, or MUSTER_CERTIFICATES={path}"
    ));
}
