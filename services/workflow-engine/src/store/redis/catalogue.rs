//! The catalogue: a sorted set by namespace, name and semantic version, and hashes by the same place. Nothing is ever
//! removed, so what was found in the order is there.

use muster_store::redis::{Script, Slot, cmd};

use super::keys::{self, slots};
use super::steps::token;
use super::{Redis, decode, encode};
use crate::store::{Error, Page, Workflow, WorkflowKey};

static ADD: Script = Script::new(include_str!("workflow_add.lua"));

const ORDER: &str = "order";
const KNOWN: &str = "workflows";
const DOCUMENTS: &str = "documents";
const TOKENS: &str = "tokens";

impl Redis {
    fn catalogue(&self) -> Slot {
        Slot::named(self.prefix(), slots::CATALOGUE)
    }

    pub(super) async fn add_to_catalogue(&self, workflow: &Workflow, document: &str) -> Result<(), Error> {
        let key = &workflow.key;
        let what = format!("{}/{} {}", key.namespace, key.name, key.version);
        let Some(place) = keys::workflow(key) else {
            return Err(Error::Damaged(format!("{what} has no semantic version")));
        };
        let slot = self.catalogue();
        let call = ADD
            .call()
            .key(slot.key(ORDER))
            .key(slot.key(KNOWN))
            .key(slot.key(DOCUMENTS))
            .key(slot.key(TOKENS))
            .arg(place)
            .arg(token())
            .arg(encode(workflow)?)
            .arg(document);
        self.check_size(&call)?;
        match self.call(&call).await? {
            true => Ok(()),
            false => Err(Error::Conflict(what)),
        }
    }

    pub(super) async fn document_of(&self, key: &WorkflowKey) -> Result<Option<String>, Error> {
        let Some(place) = keys::workflow(key) else {
            return Ok(None);
        };
        self.run(cmd("HGET").arg(self.catalogue().key(DOCUMENTS)).arg(place))
            .await
    }

    pub(super) async fn workflow_of(&self, key: &WorkflowKey) -> Result<Option<Workflow>, Error> {
        match keys::workflow(key) {
            Some(place) => Ok(self.known(&[place]).await?.into_iter().next()),
            None => Ok(None),
        }
    }

    pub(super) async fn newest_of(&self, namespace: &str, name: &str) -> Result<Option<Workflow>, Error> {
        let first = keys::named(namespace, name);
        let mut end = first.clone();
        // After the NUL that ends the name.
        if let Some(last) = end.last_mut() {
            *last = 1;
        }
        let mut command = cmd("ZRANGE");
        command.arg(self.catalogue().key(ORDER));
        command.arg(bound(b'(', &end)).arg(bound(b'[', &first));
        command.arg("BYLEX").arg("REV").arg("LIMIT").arg(0).arg(1);
        let places: Vec<Vec<u8>> = self.run(&command).await?;
        Ok(self.known(&places).await?.into_iter().next())
    }

    pub(super) async fn list_workflows(
        &self,
        after: Option<&WorkflowKey>,
        limit: usize,
    ) -> Result<Page<Workflow, WorkflowKey>, Error> {
        let start = match after.and_then(keys::workflow) {
            Some(place) => bound(b'(', &place),
            None => b"-".to_vec(),
        };
        let mut command = cmd("ZRANGE");
        command.arg(self.catalogue().key(ORDER)).arg(start).arg("+");
        command
            .arg("BYLEX")
            .arg("LIMIT")
            .arg(0)
            .arg(limit.saturating_add(1));
        let mut places: Vec<Vec<u8>> = self.run(&command).await?;
        let is_more = places.len() > limit;
        places.truncate(limit);
        let entries = self.known(&places).await?;
        let next = entries.last().filter(|_| is_more).map(|last| last.key.clone());
        Ok(Page { entries, next })
    }

    async fn known(&self, places: &[Vec<u8>]) -> Result<Vec<Workflow>, Error> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = cmd("HMGET");
        command.arg(self.catalogue().key(KNOWN)).arg(places);
        let texts: Vec<Option<Vec<u8>>> = self.run(&command).await?;
        let texts = texts.into_iter().flatten();
        texts
            .map(|text| decode("a workflow of the catalogue", &text))
            .collect()
    }
}

fn bound(kind: u8, place: &[u8]) -> Vec<u8> {
    let mut bound = vec![kind];
    bound.extend(place);
    bound
}
