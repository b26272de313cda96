//! `muster deploy rollback`: an earlier revision again, as a new one, so that the history only grows.

use muster_runtime::Shutdown;

use super::apply::now;
use super::lease::Lease;
use super::revision::{self, Revision};
use super::waves::Roller;
use super::{Patience, Place};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Runs it.
pub async fn run(
    place: &Place,
    to: Option<u64>,
    patience: &Patience,
    output: &Output,
) -> Result<(), Failure> {
    let cluster = place.target.connect()?;
    let namespace = place.namespace.as_str();
    let known = revision::all(&cluster, namespace).await?;
    let newest = known.last().ok_or_else(|| revision::none(namespace))?;
    let wanted = choose(&known, to)?;
    let lease = Lease::take(&cluster, namespace, output).await?;
    let roller = Roller {
        cluster: &cluster,
        namespace,
        patience: patience.duration(),
        force: true,
        output,
    };
    let outcome = async {
        let (changes, pruned) = roller.way_back(wanted, &newest.objects).await?;
        let stop = Shutdown::on_signals();
        tokio::select! {
            outcome = roller.roll_out(&changes, &pruned) => outcome?,
            () = stop.requested() => return Err(Failure::failed("interrupted half way")
                .with_remedy("give the command again: it goes on where it was")),
            lost = lease.lost() => return Err(lost),
        }
        let note = format!("as revision {}", wanted.number);
        let number = revision::record(&cluster, namespace, &known, &note, &now(), &wanted.objects).await?;
        roller.print(&changes, &pruned, number);
        output.aside(&format!(
            "everything is as at revision {} again, and well; this is revision {number}",
            wanted.number
        ));
        Ok(())
    }
    .await;
    lease.release().await;
    outcome
}

/// The revision that is meant.
fn choose(known: &[Revision], to: Option<u64>) -> Result<&Revision, Failure> {
    let found = match to {
        Some(number) => known.iter().find(|revision| revision.number == number),
        None => known.iter().rev().nth(1),
    };
    found.ok_or_else(|| {
        let numbers: Vec<String> = known.iter().map(|revision| revision.number.to_string()).collect();
        let what = to.map_or_else(
            || "there is no revision before this one".to_owned(),
            |number| format!("there is no revision {number}"),
        );
        let mut failure = Failure::failed(what).with_remedy(format!("there are: {}", numbers.join(", ")));
        failure.exit = Exit::NotFound;
        failure
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_before_the_newest_is_meant_unless_another_is_named() {
        let known = [3, 4, 7].map(|number| Revision {
            number,
            applied_at: String::new(),
            note: String::new(),
            objects: Vec::new(),
        });
        assert_eq!(choose(&known, None).unwrap().number, 4);
        assert_eq!(choose(&known, Some(3)).unwrap().number, 3);
        let failure = choose(&known, Some(5)).unwrap_err();
        assert_eq!(failure.remedy.as_deref(), Some("there are: 3, 4, 7"));
        assert!(choose(&known[..1], None).is_err());
    }
}
