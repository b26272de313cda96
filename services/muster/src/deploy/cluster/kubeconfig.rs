//! Where a cluster is and how one gets in: what kubeconfigs say.
//!
//! The file that is named, or those in `KUBECONFIG`, of which the first that says something counts, or `~/.kube/config`, or what a pod is
//! given by its service account. Paths in a file are relative to it. What only old clients know (`auth-provider`) is refused by name.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::Error;
use super::credentials::{Credentials, Program};

/// Where a pod finds what its service account is given.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How one cluster is reached.
#[derive(Debug)]
pub struct Access {
    /// Its address.
    pub server: String,
    /// Whose certificates it may have, in PEM; those of the machine where nothing is said.
    pub roots: Option<Vec<u8>>,
    /// Whether any certificate will do.
    pub insecure: bool,
    /// The name in its certificate, where it is not that of the address.
    pub server_name: Option<String>,
    /// What all requests go through.
    pub proxy: Option<String>,
    /// Certificate and key of ours, in PEM.
    pub identity: Option<Vec<u8>>,
    /// Who we are otherwise.
    pub credentials: Credentials,
    /// Whom we act for: headers.
    pub acting_for: Vec<(&'static str, String)>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    current_context: String,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedUser {
    name: String,
    user: User,
}

// No Debug of what is secret ever reaches anybody: the type is private, and errors quote keys only.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    exec: Option<Program>,
    auth_provider: Option<serde_json::Value>,
    #[serde(rename = "as")]
    acting_for: Option<String>,
    as_groups: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

fn wrong(what: impl Into<String>) -> Error {
    Error::Kubeconfig(what.into())
}

/// How the cluster of a context is reached, by the file, the environment, or the pod.
pub fn read(file: Option<&Path>, context: Option<&str>) -> Result<Access, Error> {
    let files: Vec<PathBuf> = match (file, std::env::var_os("KUBECONFIG")) {
        (Some(file), _) => vec![file.to_owned()],
        (None, Some(list)) if !list.is_empty() => std::env::split_paths(&list).collect(),
        (None, _) => {
            let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
            let there: Vec<PathBuf> = home.into_iter().filter(|path| path.is_file()).collect();
            if there.is_empty() && Path::new(SERVICE_ACCOUNT).join("token").is_file() {
                return of_pod();
            }
            there
        }
    };
    // Files of a list that are not there are left out; the only one has to be.
    let present: Vec<&PathBuf> = files
        .iter()
        .filter(|path| files.len() == 1 || path.is_file())
        .collect();
    if present.is_empty() {
        return Err(wrong("there is none"));
    }
    let mut read = Vec::new();
    for path in present {
        let text =
            std::fs::read_to_string(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        let parsed: File = yaml_serde::from_str(&text)
            .map_err(|error| wrong(format!("{} is not understood: {error}", path.display())))?;
        read.push((path.parent().unwrap_or(Path::new("")).to_owned(), parsed));
    }
    choose(&read, context)
}

fn choose(files: &[(PathBuf, File)], context: Option<&str>) -> Result<Access, Error> {
    let current = files
        .iter()
        .map(|(_, file)| file.current_context.as_str())
        .find(|name| !name.is_empty());
    let name = context.or(current).ok_or_else(|| {
        wrong("it has no current context; name one with --context, or `kubectl config use-context`")
    })?;
    let known = files.iter().flat_map(|(_, file)| &file.contexts);
    let found = known.clone().find(|known| known.name == name);
    let Some(NamedContext { context, .. }) = found else {
        let names: Vec<&str> = known.map(|known| known.name.as_str()).collect();
        return Err(wrong(format!(
            "there is no context '{name}', only {}",
            names.join(", ")
        )));
    };
    let cluster = files.iter().find_map(|(directory, file)| {
        let known = file.clusters.iter().find(|known| known.name == context.cluster);
        known.map(|known| (directory, &known.cluster))
    });
    let (beside, cluster) = cluster.ok_or_else(|| {
        wrong(format!(
            "context '{name}' names a cluster '{}' that is not there",
            context.cluster
        ))
    })?;
    if cluster.server.is_empty() {
        return Err(wrong(format!("cluster '{}' has no server", context.cluster)));
    }
    let roots = content(
        beside,
        "certificate-authority",
        cluster.certificate_authority.as_deref(),
        cluster.certificate_authority_data.as_deref(),
    )?;
    let access = Access {
        server: cluster.server.trim_end_matches('/').to_owned(),
        roots,
        insecure: cluster.insecure_skip_tls_verify,
        server_name: cluster.tls_server_name.clone().filter(|name| !name.is_empty()),
        proxy: cluster.proxy_url.clone().filter(|url| !url.is_empty()),
        identity: None,
        credentials: Credentials::None,
        acting_for: Vec::new(),
    };
    let user = files.iter().find_map(|(directory, file)| {
        let known = file.users.iter().find(|known| known.name == context.user);
        known.map(|known| (directory, &known.user))
    });
    match user {
        Some((beside, user)) => with_user(access, beside, user),
        None if context.user.is_empty() => Ok(access),
        None => Err(wrong(format!(
            "context '{name}' names a user '{}' that is not there",
            context.user
        ))),
    }
}

fn with_user(access: Access, beside: &Path, user: &User) -> Result<Access, Error> {
    if user.auth_provider.is_some() {
        return Err(wrong(
            "auth-provider is known to old clients only; use `exec` with the plugin of your provider",
        ));
    }
    let certificate = content(
        beside,
        "client-certificate",
        user.client_certificate.as_deref(),
        user.client_certificate_data.as_deref(),
    )?;
    let key = content(
        beside,
        "client-key",
        user.client_key.as_deref(),
        user.client_key_data.as_deref(),
    )?;
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some([certificate, b"\n".to_vec(), key].concat()),
        (None, None) => None,
        _ => return Err(wrong("client-certificate and client-key belong together")),
    };
    let credentials = if let Some(token) = user.token.clone().filter(|token| !token.is_empty()) {
        Credentials::Token(token)
    } else if let Some(file) = &user.token_file {
        Credentials::TokenFile(beside.join(file))
    } else if let (Some(name), Some(password)) = (&user.username, &user.password) {
        Credentials::Password(STANDARD.encode(format!("{name}:{password}")))
    } else if let Some(program) = &user.exec {
        Credentials::Program(program.clone().beside(beside))
    } else {
        Credentials::None
    };
    let acting_for = user
        .acting_for
        .iter()
        .map(|name| ("impersonate-user", name.clone()));
    let groups = user
        .as_groups
        .iter()
        .map(|name| ("impersonate-group", name.clone()));
    Ok(Access {
        identity,
        credentials,
        acting_for: acting_for.chain(groups).collect(),
        ..access
    })
}

/// What a file or the text beside its key says; the text goes first, as it does for kubectl.
fn content(
    beside: &Path,
    key: &str,
    file: Option<&Path>,
    data: Option<&str>,
) -> Result<Option<Vec<u8>>, Error> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let decoded = STANDARD.decode(data.trim());
        return decoded
            .map(Some)
            .map_err(|_| wrong(format!("{key}-data is not base64")));
    }
    let Some(file) = file.filter(|file| !file.as_os_str().is_empty()) else {
        return Ok(None);
    };
    let path = beside.join(file);
    std::fs::read(&path)
        .map(Some)
        .map_err(|error| wrong(format!("{key}: {}: {error}", path.display())))
}

/// How a pod reaches the cluster that it is in.
fn of_pod() -> Result<Access, Error> {
    let variable = |name: &str| {
        std::env::var(name).map_err(|_| wrong(format!("{name} is not set, which a pod is given")))
    };
    let (host, port) = (
        variable("KUBERNETES_SERVICE_HOST")?,
        variable("KUBERNETES_SERVICE_PORT")?,
    );
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    let directory = Path::new(SERVICE_ACCOUNT);
    let path = directory.join("ca.crt");
    let roots = std::fs::read(&path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    Ok(Access {
        server: format!("https://{host}:{port}"),
        roots: Some(roots),
        insecure: false,
        server_name: None,
        proxy: None,
        identity: None,
        credentials: Credentials::TokenFile(directory.join("token")),
        acting_for: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[&str]) -> Vec<(PathBuf, File)> {
        texts
            .iter()
            .map(|text| (PathBuf::from("/of/file"), yaml_serde::from_str(text).unwrap()))
            .collect()
    }

    const FIRST: &str = r"
current-context: a
contexts:
  - {name: a, context: {cluster: one, user: me}}
  - {name: b, context: {cluster: two, user: nobody}}
clusters:
  - {name: one, cluster: {server: 'https://one:6443/', insecure-skip-tls-verify: true, tls-server-name: kubernetes}}
users:
  - {name: me, user: {token: t, as: another, as-groups: [g]}}
";
    const SECOND: &str = r"
current-context: b
clusters:
  - {name: one, cluster: {server: 'https://not-this'}}
  - {name: two, cluster: {server: 'https://two', certificate-authority-data: eA==}}
users:
  - {name: nobody, user: {tokenFile: token}}
";

    #[test]
    fn the_first_file_that_says_something_counts() {
        let files = files(&[FIRST, SECOND]);
        let access = choose(&files, None).unwrap();
        assert_eq!(access.server, "https://one:6443");
        assert!(access.insecure);
        assert_eq!(access.server_name.as_deref(), Some("kubernetes"));
        assert!(matches!(access.credentials, Credentials::Token(token) if token == "t"));
        let acting = [
            ("impersonate-user", "another".to_owned()),
            ("impersonate-group", "g".to_owned()),
        ];
        assert_eq!(access.acting_for, acting);
        let access = choose(&files, Some("b")).unwrap();
        assert_eq!(
            (access.server.as_str(), access.roots),
            ("https://two", Some(b"x".to_vec()))
        );
        assert!(
            matches!(access.credentials, Credentials::TokenFile(path) if path == Path::new("/of/file/token"))
        );
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let says =
            |text: &str, context: Option<&str>| choose(&files(&[text]), context).unwrap_err().to_string();
        assert!(says(FIRST, Some("c")).contains("no context 'c', only a, b"));
        assert!(says(FIRST, Some("b")).contains("a cluster 'two' that is not there"));
        assert!(says("{}", None).contains("no current context"));
        let user = |user: &str| FIRST.replace("{token: t, as: another, as-groups: [g]}", user);
        assert!(says(&user("{auth-provider: {name: gcp}}"), None).contains("auth-provider"));
        assert!(says(&user("{client-key-data: eA==}"), None).contains("belong together"));
        assert!(says(&user("{client-key-data: '?'}"), None).contains("client-key-data is not base64"));
    }
}
