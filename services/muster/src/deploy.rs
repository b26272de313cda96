//! `muster deploy`: from an overlay and a system configuration to a cluster that is well, and back.
//!
//! ```text
//! overlay.rs     where manifests come from
//! values.rs      the system configuration, laid over them, and judged as the services will
//! manifest.rs    objects, and the order in which they come
//! cluster.rs     the cluster's API
//! preflight.rs   what has to be there first, with a remedy for what is not
//! plan.rs        what would change; difference.rs shows it
//! apply.rs       changes it, and takes back what does not get well; waves.rs brings changes about, one wave after the other
//! rollout.rs     whether a workload is what was asked for
//! revision.rs    what was applied, kept in the cluster; rollback.rs goes back to it
//! lease.rs       one operator at a time
//! status.rs      how it is; destroy.rs removes it
//! ```
//!
//! Everything that decides is pure and knows no cluster. What is remembered is in the cluster, so that any machine with a kubeconfig
//! continues where another has stopped: a command that was killed is given again.

mod apply;
mod cluster;
mod destroy;
mod difference;
mod lease;
mod manifest;
mod overlay;
mod plan;
mod preflight;
mod revision;
mod rollback;
mod rollout;
mod status;
mod values;
mod waves;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::Output;
use cluster::Cluster;
use manifest::Object;
use values::System;

/// `muster deploy …`; an overlay is a directory, a name in deploy/kubernetes/overlays, or a file with manifests (`-`: standard input).
#[derive(Debug, Subcommand)]
pub enum DeployCommand {
    /// Print the manifests of an overlay with the system configuration's values; needs no cluster.
    Render(Wanted),
    /// Show what `apply` would change, field by field; changes nothing.
    Diff {
        /// What is wanted.
        #[command(flatten)]
        wanted: Wanted,
        /// Which cluster.
        #[command(flatten)]
        target: Target,
    },
    /// Check that the cluster has what an overlay needs, and say what to do where it has not; changes nothing.
    Preflight {
        /// What is wanted.
        #[command(flatten)]
        wanted: Wanted,
        /// Which cluster.
        #[command(flatten)]
        target: Target,
    },
    /// Bring an overlay into a cluster: checked first, in the order in which its parts need each other, each awaited until it is well.
    /// Where one does not get well, everything goes back to what was applied before.
    Apply(ApplyArguments),
    /// Show how what was applied is: workloads, images, pods that complain, revisions. Fails unless all is well.
    Status(StatusArguments),
    /// Go back to an earlier revision.
    Rollback {
        /// Where.
        #[command(flatten)]
        place: Place,
        /// The revision; default: the one before the newest.
        #[arg(long, value_name = "REVISION")]
        to: Option<u64>,
        /// How long.
        #[command(flatten)]
        patience: Patience,
    },
    /// Remove everything that was applied; volumes and the namespace stay, unless they are to go too.
    Destroy {
        /// Where.
        #[command(flatten)]
        place: Place,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// The volumes too, and all that is in them, and the namespace with everything in it.
        #[arg(long)]
        volumes: bool,
        /// How long.
        #[command(flatten)]
        patience: Patience,
    },
}

/// What is to be deployed.
#[derive(Debug, Args)]
pub struct Wanted {
    /// The overlay.
    overlay: String,
    /// The system configuration (YAML or JSON): section `deploy` with namespace, images, replicas and hosts, and the services' own
    /// sections.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Wanted {
    async fn objects(&self) -> Result<Vec<Object>, Failure> {
        let system = System::read(self.config.as_deref())?;
        system.lay_over(overlay::read(&self.overlay).await?)
    }
}

/// Which cluster.
#[derive(Debug, Args)]
pub struct Target {
    /// The kubeconfig; default: KUBECONFIG, ~/.kube/config, or what a pod is given.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context in it; default: the current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl Target {
    fn connect(&self) -> Result<Cluster, Failure> {
        Ok(Cluster::connect(
            self.kubeconfig.as_deref(),
            self.context.as_deref(),
        )?)
    }
}

/// What was deployed, and where.
#[derive(Debug, Args)]
pub struct Place {
    /// The namespace.
    #[arg(long, value_name = "NAME", default_value = "agent-system")]
    namespace: String,
    /// Which cluster.
    #[command(flatten)]
    target: Target,
}

/// Arguments of `muster deploy status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// The overlay: its namespace is looked at, and whether what was applied last is what it says now. Without it, see --namespace.
    #[arg(conflicts_with = "namespace")]
    overlay: Option<String>,
    /// The system configuration that goes with it.
    #[arg(long, value_name = "FILE", requires = "overlay")]
    config: Option<PathBuf>,
    /// Where.
    #[command(flatten)]
    place: Place,
}

/// How long something may take.
#[derive(Debug, Args)]
pub struct Patience {
    /// Seconds that each wave of workloads may take to get well, or to go.
    #[arg(long, value_name = "SECONDS", default_value_t = 1_800, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl Patience {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

/// Arguments of `muster deploy apply`.
#[derive(Debug, Args)]
pub struct ApplyArguments {
    /// What is wanted.
    #[command(flatten)]
    wanted: Wanted,
    /// Which cluster.
    #[command(flatten)]
    target: Target,
    /// How long.
    #[command(flatten)]
    patience: Patience,
    /// Take over fields that others have set.
    #[arg(long)]
    force_conflicts: bool,
    /// Go on although this check of `preflight` fails; may be repeated.
    #[arg(long, value_enum, value_name = "CHECK")]
    ignore: Vec<preflight::Subject>,
}

/// Runs `muster deploy …`.
pub async fn run(command: DeployCommand, output: &Output) -> Result<(), Failure> {
    match command {
        DeployCommand::Render(wanted) => render(&wanted.objects().await?, output),
        DeployCommand::Diff { wanted, target } => diff(&wanted, &target, output).await,
        DeployCommand::Preflight { wanted, target } => {
            let objects = wanted.objects().await?;
            let checks = preflight::check(&target.connect()?, &objects).await?;
            preflight::print(&checks, output);
            preflight::refuse(&checks, &[])
        }
        DeployCommand::Apply(arguments) => apply::run(&arguments, output).await,
        DeployCommand::Status(arguments) => status::run(arguments, output).await,
        DeployCommand::Rollback { place, to, patience } => rollback::run(&place, to, &patience, output).await,
        DeployCommand::Destroy {
            place,
            yes,
            volumes,
            patience,
        } => destroy::run(&place, yes, volumes, &patience, output).await,
    }
}

fn render(objects: &[Object], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        let items: Vec<&Value> = objects.iter().map(Object::value).collect();
        output.json(&json!({"apiVersion": "v1", "kind": "List", "items": items}));
    } else {
        output.line(manifest::print(objects).map_err(Failure::failed)?.trim_end());
    }
    Ok(())
}

async fn diff(wanted: &Wanted, target: &Target, output: &Output) -> Result<(), Failure> {
    let objects = wanted.objects().await?;
    let namespace = namespace_of(&objects)?;
    let cluster = target.connect()?;
    let changes = apply::survey(&cluster, &objects, true).await?;
    let before = revision::newest(&cluster, &namespace).await?;
    let pruned = apply::pruned(&cluster, before.as_ref(), &objects).await?;
    let changes: Vec<_> = changes
        .into_iter()
        .chain(pruned)
        .filter(|change| change.action != plan::Action::Keep)
        .collect();
    if output.is_json() {
        let changes: Vec<Value> = changes.iter().map(difference::told).collect();
        output.json(&json!({"namespace": namespace, "changes": changes}));
        return Ok(());
    }
    for change in &changes {
        for line in difference::lines(change) {
            output.line(&line);
        }
    }
    if changes.is_empty() {
        output.line("nothing differs");
    }
    Ok(())
}

fn namespace_of(objects: &[Object]) -> Result<String, Failure> {
    manifest::namespace(objects).ok_or_else(|| {
        Failure::usage("the manifests name no namespace")
            .with_remedy("set `namespace` in the overlay's kustomization.yaml")
    })
}
