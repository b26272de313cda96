//! `muster token`: keys and tokens for development, and what a token says; needs no server.
//!
//! Who runs an identity provider needs none of this but `inspect`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use muster_jose::token::{self, Expected, Keys, Secret, Signer};
use muster_jose::{Private, key};
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_runtime::trust::Role;
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::read;

/// Largest file of a key, a secret or a token.
const LARGEST: u64 = 1 << 20;

/// Names of the files that `keys` writes.
const KEY: &str = "token-key.pem";
const KEY_SET: &str = "jwks.json";

/// `muster token …`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a key pair of Ed25519: `token-key.pem` to issue tokens with, and `jwks.json` for `trust.tokens.jwks_file`.
    Keys {
        /// Where; it is made where it is not there.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Where the public half goes, for whoever may not see the other; default: `jwks.json` beside it.
        #[arg(long, value_name = "FILE")]
        key_set: Option<PathBuf>,
    },
    /// Print a token.
    Issue(IssueArguments),
    /// Show what a token says, and whether it is good where keys are given.
    Inspect {
        /// The token, `@FILE`, or `-` for standard input.
        #[arg(value_name = "TOKEN")]
        text: String,
        /// Public keys to verify it with: a JSON Web Key Set.
        #[arg(long, value_name = "FILE")]
        jwks: Option<PathBuf>,
        /// The shared secret to verify it with.
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        /// Whom it must be for.
        #[arg(long, default_value = "muster")]
        audience: String,
    },
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// May look.
    AgentReader,
    /// May have agents work.
    AgentWriter,
    /// Is a service of ours, and speaks for callers.
    Service,
    /// Is an agent, and registers under the name in the subject.
    Agent,
    /// May do everything.
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::AgentReader => Self::AgentReader,
            RoleName::AgentWriter => Self::AgentWriter,
            RoleName::Service => Self::Service,
            RoleName::Admin => Self::Admin,
            RoleName::Agent => Self::Agent,
        }
    }
}

/// Arguments of `muster token issue`.
#[derive(Debug, Args)]
pub struct IssueArguments {
    /// Whom it is about.
    #[arg(long, value_name = "NAME")]
    pub subject: String,
    /// What that caller may do; may be repeated.
    #[arg(long, value_enum, required = true)]
    pub role: Vec<RoleName>,
    /// An agent that may be reached, or `skill:SKILL`; may be repeated; all where none is given.
    #[arg(long, value_name = "TARGET")]
    pub target: Vec<String>,
    /// A namespace that may be reached; may be repeated; all where none is given.
    #[arg(long, value_name = "NAME")]
    pub namespace: Vec<String>,
    /// How long it is good, such as 1h or 30m.
    #[arg(long, default_value = "1h", value_name = "TIME")]
    pub lifetime: SignedDuration,
    /// Who says so.
    #[arg(long, default_value = "muster")]
    pub issuer: String,
    /// Whom it is for.
    #[arg(long, default_value = "muster")]
    pub audience: String,
    /// The private key that signs it: PKCS#8 in PEM, of Ed25519 or P-256.
    #[arg(long, value_name = "FILE", required_unless_present = "secret_file")]
    pub key: Option<PathBuf>,
    /// The shared secret that signs it (HS256), as in `trust.tokens.jwt_secret_key_file`.
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    pub secret_file: Option<PathBuf>,
}

/// Runs `muster token …`.
pub fn run(command: TokenCommand, output: &Output) -> Result<(), Failure> {
    match command {
        TokenCommand::Keys { directory, key_set } => keys(&directory, key_set, output),
        TokenCommand::Issue(arguments) => issue(arguments, output),
        TokenCommand::Inspect {
            text,
            jwks,
            secret_file,
            audience,
        } => inspect(&text, jwks.as_deref(), secret_file.as_deref(), audience, output),
    }
}

fn keys(directory: &Path, key_set: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    let (key, pem) = Private::generate().map_err(Failure::failed)?;
    std::fs::create_dir_all(directory)
        .map_err(|error| Failure::usage(format!("{}: {error}", directory.display())))?;
    let private = directory.join(KEY);
    let public = key_set.unwrap_or_else(|| directory.join(KEY_SET));
    write_new(&private, pem.as_bytes(), true)?;
    let set = serde_json::to_string_pretty(&key.key_set("")).unwrap_or_default();
    write_new(&public, format!("{set}\n").as_bytes(), false)?;
    if output.is_json() {
        output.json(&json!({ "key": private, "jwks": public, "kid": key.thumbprint() }));
        return Ok(());
    }
    output.line(&format!(
        "{}: issues tokens; keep it to yourself",
        private.display()
    ));
    output.line(&format!(
        "{}: verifies them; name it in trust.tokens.jwks_file of every service",
        public.display()
    ));
    Ok(())
}

/// Writes a file that is not there yet; what is secret for its owner alone.
fn write_new(path: &Path, bytes: &[u8], is_secret: bool) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(if is_secret { 0o600 } else { 0o644 });
    }
    #[cfg(not(unix))]
    let _ = is_secret;
    let written = options.open(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| {
        Failure::usage(format!("{}: {error}", path.display()))
            .with_remedy("nothing is replaced: name a directory that has no keys yet")
    })
}

fn issue(arguments: IssueArguments, output: &Output) -> Result<(), Failure> {
    let signer = match (&arguments.key, &arguments.secret_file) {
        (Some(path), _) => Signer::Key(Private::read(path).map_err(Failure::usage)?, String::new()),
        (None, Some(path)) => Signer::Secret(secret(path)?),
        (None, None) => return Err(Failure::usage("name what signs it: --key or --secret-file")),
    };
    let seconds = arguments.lifetime.as_secs();
    if seconds <= 0 {
        return Err(Failure::usage("--lifetime: must be more than 0 s"));
    }
    let now = SystemClock::default().now().as_second();
    let roles: Vec<&str> = arguments
        .role
        .iter()
        .map(|role| Role::from(*role).name())
        .collect();
    let mut claims = json!({
        "sub": arguments.subject, "iss": arguments.issuer, "aud": arguments.audience,
        "iat": now, "exp": now.saturating_add(seconds), "roles": roles,
    });
    if !arguments.target.is_empty() {
        claims["muster_targets"] = json!(arguments.target);
    }
    if !arguments.namespace.is_empty() {
        claims["muster_namespaces"] = json!(arguments.namespace);
    }
    let token = signer.sign(&claims).map_err(Failure::failed)?;
    if output.is_json() {
        output.json(&json!({ "token": token, "claims": claims }));
    } else {
        output.line(&token);
    }
    Ok(())
}

fn secret(path: &Path) -> Result<Secret, Failure> {
    let name = format!("--secret-file {}", path.display());
    let text = read::bounded_text(&name, path, LARGEST)?;
    Secret::new(&text).map_err(|what| Failure::usage(format!("{name}: the secret {what}")))
}

fn inspect(
    text: &str,
    jwks: Option<&Path>,
    secret_file: Option<&Path>,
    audience: String,
    output: &Output,
) -> Result<(), Failure> {
    let text = match text.strip_prefix('@') {
        Some(path) => read::bounded_text(&format!("@{path}"), Path::new(path), LARGEST)?,
        None if text == "-" => read::bounded_text("standard input", Path::new("-"), LARGEST)?,
        None => text.to_owned(),
    };
    let text = text.trim();
    let [header, claims] = token::inspect(text).map_err(|refusal| Failure::usage(refusal.to_string()))?;
    let public = jwks
        .map(|path| {
            let name = format!("--jwks {}", path.display());
            let text = read::bounded_text(&name, path, LARGEST)?;
            key::key_set(&text).map_err(|what| Failure::usage(format!("{name}: {what}")))
        })
        .transpose()?
        .unwrap_or_default();
    let secret = secret_file.map(secret).transpose()?;
    let is_asked = jwks.is_some() || secret.is_some();
    let expected = Expected {
        issuers: &[],
        audiences: &[audience],
        leeway: 60,
        now: SystemClock::default().now().as_second(),
    };
    let keys = Keys {
        public: &public,
        secret: secret.as_ref(),
    };
    let verdict = is_asked.then(|| token::verify(text, keys, &expected));
    let expires = claims
        .get("exp")
        .and_then(Value::as_i64)
        .and_then(|seconds| Timestamp::from_second(seconds).ok());
    if output.is_json() {
        output.json(&json!({
            "header": header, "claims": claims, "expires": expires.map(|time| time.to_string()),
            "verified": verdict.as_ref().map(Result::is_ok),
        }));
    } else {
        output.line(&format!("header  {}", Value::Object(header)));
        output.line(&format!("claims  {}", Value::Object(claims)));
        if let Some(expires) = expires {
            output.line(&format!("expires {expires}"));
        }
        output.line(match &verdict {
            None => "signature: not verified; give --jwks or --secret-file",
            Some(Ok(_)) => "signature: good",
            Some(Err(_)) => "signature: refused",
        });
    }
    match verdict {
        Some(Err(refusal)) => Err(Failure {
            exit: Exit::Refused,
            ..Failure::failed(refusal.to_string()).with_remedy("issue another with `muster token issue`")
        }),
        _ => Ok(()),
    }
}
