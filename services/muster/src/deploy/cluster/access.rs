//! Where a cluster is and how one gets in: what kubeconfigs say, as the crate `kube` reads and merges them.
//!
//! The file that is named, or those in `KUBECONFIG`, of which the first that says something counts, or `~/.kube/config`, or what a pod is
//! given by its service account. Where the crate (5.0) does otherwise than kubectl, kubectl is followed here: of several files in
//! `KUBECONFIG` some need not be there; a user that is not there is a mistake, and nobody's credentials are not a guess; `NO_PROXY` is asked
//! about the cluster, where the crate asks it about the proxy (`ConfigLoader::proxy_url`). What only old clients know (`auth-provider`) is
//! refused by name. What has secrets in it is never quoted in an error.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use hyper_util::client::proxy::matcher::Matcher;
use kube::Config;
use kube::config::{AuthInfo, ExecConfig, Kubeconfig, KubeconfigError};

use super::Error;

const CONNECT: Duration = Duration::from_secs(10);

/// How one cluster is reached.
#[derive(Debug)]
pub struct Access {
    /// Its address, and all about it and us that does not change.
    pub config: Config,
    /// What says who we are, where nothing else does.
    pub program: Option<ExecConfig>,
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
            let home = std::env::home_dir().map(|home| home.join(".kube/config"));
            home.into_iter().filter(|path| path.is_file()).collect()
        }
    };
    // Files of a list that are not there are left out; the only one has to be.
    let present: Vec<&PathBuf> = files
        .iter()
        .filter(|path| files.len() == 1 || path.is_file())
        .collect();
    if present.is_empty() {
        let config = Config::incluster()
            .map_err(|error| wrong(format!("there is none, nor is this a pod: {error}")))?;
        return Ok(ours(config));
    }
    let mut merged = Kubeconfig::default();
    for path in present {
        let mut said = Kubeconfig::read_from(path).map_err(|error| match error {
            // Its own words would show the line, with what is secret in it.
            KubeconfigError::Parse(error) => wrong(format!(
                "{} is not understood: {}",
                path.display(),
                error.without_snippet()
            )),
            other => wrong(other.to_string()),
        })?;
        said.current_context = said.current_context.filter(|name| !name.is_empty());
        merged = merged.merge(said).map_err(|error| wrong(error.to_string()))?;
    }
    choose(merged, context)
}

fn choose(mut said: Kubeconfig, context: Option<&str>) -> Result<Access, Error> {
    let current = said.current_context.as_deref();
    let name = context.or(current).ok_or_else(|| {
        wrong("it has no current context; name one with --context, or `kubectl config use-context`")
    })?;
    let known = said.contexts.iter();
    let found = known.clone().find(|known| known.name == name);
    let Some(found) = found.and_then(|known| known.context.as_ref()) else {
        let names: Vec<&str> = known.map(|known| known.name.as_str()).collect();
        let names = names.join(", ");
        return Err(wrong(format!("there is no context '{name}', only {names}")));
    };
    let user = found.user.as_deref().unwrap_or_default();
    if !user.is_empty() && !said.auth_infos.iter().any(|known| known.name == user) {
        return Err(wrong(format!(
            "context '{name}' names a user '{user}' that is not there"
        )));
    }
    let cluster = said.clusters.iter().find(|known| known.name == found.cluster);
    let proxy = cluster.and_then(|known| known.cluster.as_ref()?.proxy_url.clone());
    said.current_context = Some(name.to_owned());
    let mut config = Config::try_from(said).map_err(|error| wrong(error.to_string()))?;
    if config.auth_info.auth_provider.is_some() {
        return Err(wrong(
            "auth-provider is known to old clients only; use `exec` with the plugin of your provider",
        ));
    }
    let is_said = proxy.is_some_and(|proxy| !proxy.is_empty());
    if !is_said && Matcher::from_env().intercept(&config.cluster_url).is_none() {
        config.proxy_url = None;
    }
    Ok(ours(config))
}

/// The same, as we use it: requests are tried again by [`super::connection`], and programs are asked by [`super::program`].
fn ours(mut config: Config) -> Access {
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    let agent = HeaderValue::from_static(concat!("muster/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    let program = config.auth_info.exec.take();
    let program = program.filter(|_| !says_who(&config.auth_info));
    Access { config, program }
}

/// Whether it says who we are without a program.
fn says_who(user: &AuthInfo) -> bool {
    user.token.is_some() || user.token_file.is_some() || user.username.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[&str]) -> Kubeconfig {
        let said = texts.iter().map(|text| Kubeconfig::from_yaml(text).unwrap());
        said.fold(Kubeconfig::default(), |merged, one| merged.merge(one).unwrap())
    }

    const FIRST: &str = r"
current-context: a
contexts:
  - {name: a, context: {cluster: one, user: me}}
  - {name: b, context: {cluster: two, user: nobody}}
clusters:
  - {name: one, cluster: {server: 'https://one:6443/', insecure-skip-tls-verify: true, tls-server-name: kubernetes}}
users:
  - {name: me, user: {token: t, as: another, as-groups: [g], exec: {command: asked-for-nothing}}}
";
    const SECOND: &str = r"
current-context: b
clusters:
  - {name: one, cluster: {server: 'https://not-this'}}
  - {name: two, cluster: {server: 'https://two', proxy-url: 'http://proxy:3128'}}
users:
  - {name: nobody, user: {exec: {command: who-am-i}}}
";

    #[test]
    fn the_first_file_that_says_something_counts() {
        let access = choose(files(&[FIRST, SECOND]), None).unwrap();
        assert_eq!(access.config.cluster_url.host(), Some("one"));
        assert!(access.config.accept_invalid_certs);
        assert_eq!(access.config.tls_server_name.as_deref(), Some("kubernetes"));
        assert!(access.config.auth_info.token.is_some() && access.program.is_none());
        assert_eq!(access.config.auth_info.impersonate.as_deref(), Some("another"));
        let access = choose(files(&[FIRST, SECOND]), Some("b")).unwrap();
        assert_eq!(access.config.cluster_url.host(), Some("two"));
        assert_eq!(access.config.proxy_url.unwrap().host(), Some("proxy"));
        assert_eq!(access.program.unwrap().command.as_deref(), Some("who-am-i"));
        assert!(access.config.auth_info.exec.is_none(), "nobody else asks it");
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let says =
            |text: &str, context: Option<&str>| choose(files(&[text]), context).unwrap_err().to_string();
        assert!(says(FIRST, Some("c")).contains("no context 'c', only a, b"));
        assert!(says(FIRST, Some("b")).contains("a user 'nobody' that is not there"));
        assert!(says("{}", None).contains("no current context"));
        assert!(says(&FIRST.replace("name: one", "name: other"), None).contains("cluster of context: one"));
        let user = FIRST.replace("token: t", "auth-provider: {name: gcp}");
        assert!(says(&user, None).contains("auth-provider"));
    }

    #[test]
    fn a_file_that_is_not_understood_is_named_and_not_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        std::fs::write(&path, "users:\n  - {name: me, user: {token: very-secret}\n").unwrap();
        let says = read(Some(&path), None).unwrap_err().to_string();
        assert!(says.contains(&path.display().to_string()), "{says}");
        assert!(
            says.contains("is not understood") && !says.contains("very-secret"),
            "{says}"
        );
    }
}
