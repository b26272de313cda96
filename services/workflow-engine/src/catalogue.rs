//! The catalogue of documents: checked, immutable once applied, found by name and version.

use std::sync::Arc;

use muster_api::names::{DEFAULT_NAMESPACE, suggestion};
use muster_runtime::clock::SharedClock;
use muster_runtime::trust::Caller;
use muster_workflow_dsl::Problems;

use crate::behalf::{self, Behalf};
use crate::error::Error;
use crate::off_thread::off_thread;
use crate::page::{self, List};
use crate::store::{self, Page, Store, Workflow, WorkflowKey};

/// Documents that are looked at for names near to one that is not there.
const MOST_NAMES: usize = 1_000;

/// The catalogue of documents.
pub struct Catalogue {
    store: Arc<dyn Store>,
    clock: SharedClock,
    most_bytes: usize,
}

/// A document by name; an empty version means the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `document.namespace`; empty means `default`.
    pub namespace: String,
    /// `document.name`.
    pub name: String,
    /// `document.version`.
    pub version: String,
}

impl Reference {
    /// The namespace that is meant.
    #[must_use]
    pub fn namespace(&self) -> &str {
        if self.namespace.is_empty() {
            DEFAULT_NAMESPACE
        } else {
            &self.namespace
        }
    }
}

impl Catalogue {
    pub(crate) fn new(store: Arc<dyn Store>, clock: SharedClock, most_bytes: usize) -> Self {
        Self {
            store,
            clock,
            most_bytes,
        }
    }

    /// Refuses a document that is too large before anything else is done with it.
    ///
    /// # Errors
    /// It is empty or too large.
    pub fn bound(&self, document: &str) -> Result<(), Error> {
        if document.trim().is_empty() {
            return Err(Error::field(
                "document",
                "is empty; give the text of a workflow in YAML or JSON",
            ));
        }
        let (bytes, limit) = (document.len(), self.most_bytes);
        if bytes > limit {
            let message =
                format!("has {bytes} bytes, and at most {limit} are taken ('engine.max_payload_bytes')");
            return Err(Error::field("document", message));
        }
        Ok(())
    }

    /// Everything that is wrong with a document, or doubtful.
    ///
    /// # Errors
    /// It is empty or too large to look at.
    pub async fn validate(&self, document: &str) -> Result<Problems, Error> {
        self.bound(document)?;
        let text = document.to_owned();
        Ok(off_thread(move || muster_workflow_dsl::check(&text)).await)
    }

    /// Adds a document. The same content again is fine.
    ///
    /// # Errors
    /// It is not valid, or its version has other content.
    pub async fn apply(
        &self,
        document: &str,
        caller: Option<&Arc<Caller>>,
    ) -> Result<(Workflow, Problems), Error> {
        let problems = self.validate(document).await?;
        if problems.has_errors() {
            return Err(Error::InvalidWorkflow(problems));
        }
        let text = document.to_owned();
        let parsed = off_thread(move || muster_workflow_dsl::parse(&text)).await;
        let definition = parsed.map_err(Error::InvalidWorkflow)?;
        let header = &definition.workflow.header;
        behalf::check_namespace(caller, &header.namespace)?;
        let key = WorkflowKey {
            namespace: header.namespace.clone(),
            name: header.name.clone(),
            version: header.version.clone(),
        };
        let workflow = Workflow {
            key,
            digest: definition.digest.clone(),
            applied_at: self.clock.now(),
            title: header.title.clone().unwrap_or_default(),
            behalf: caller.and_then(|caller| Behalf::of(caller)),
        };
        match self.store.add_workflow(&workflow, document).await {
            Ok(()) => Ok((workflow, problems)),
            Err(store::Error::Conflict(what)) => match self.store.workflow(&workflow.key).await? {
                Some(known) if known.digest == workflow.digest => Ok((known, problems)),
                Some(known) => Err(Error::VersionExists {
                    what,
                    digest: known.digest,
                }),
                None => Err(Error::Defect(format!("{what} is neither free nor taken"))),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Finds a document and its text.
    ///
    /// # Errors
    /// It is not there; the nearest names are suggested.
    pub async fn get(&self, reference: &Reference) -> Result<(Workflow, String), Error> {
        let workflow = self.find(reference).await?;
        let document = self.document(&workflow).await?;
        Ok((workflow, document))
    }

    /// Reads the text of a document that is there.
    pub(crate) async fn document(&self, workflow: &Workflow) -> Result<String, Error> {
        let document = self.store.document(&workflow.key).await?;
        document
            .ok_or_else(|| Error::Defect(format!("the text of {} is not in the store", workflow.key.name)))
    }

    /// Finds a document by its name, and by its version where one is named.
    pub(crate) async fn find(&self, reference: &Reference) -> Result<Workflow, Error> {
        if reference.name.is_empty() {
            return Err(Error::field(
                "name",
                "is empty; give `document.name` of a workflow in the catalogue",
            ));
        }
        let (namespace, name) = (reference.namespace(), reference.name.as_str());
        let found = if reference.version.is_empty() {
            self.store.newest_workflow(namespace, name).await?
        } else {
            let key = WorkflowKey {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                version: reference.version.clone(),
            };
            self.store.workflow(&key).await?
        };
        match found {
            Some(workflow) => Ok(workflow),
            None => Err(self.not_found(reference).await?),
        }
    }

    /// Says what is near: other versions of that name, else other names.
    async fn not_found(&self, reference: &Reference) -> Result<Error, Error> {
        let Reference { name, version, .. } = reference;
        let namespace = reference.namespace();
        let known = self.store.workflows(None, MOST_NAMES).await?.entries;
        let known = || {
            known
                .iter()
                .map(|workflow| &workflow.key)
                .filter(|key| key.namespace == namespace)
        };
        let versions: Vec<&str> = known()
            .filter(|key| key.name == *name)
            .map(|key| key.version.as_str())
            .collect();
        let what = format!("'{namespace}/{name}'");
        Ok(match versions.last() {
            Some(newest) if !version.is_empty() => Error::WorkflowNotFound {
                what: format!("{what} version {version}"),
                suggestion: format!("; the newest version is {newest}"),
            },
            _ => Error::WorkflowNotFound {
                what,
                suggestion: suggestion(name, known().map(|key| key.name.as_str())),
            },
        })
    }

    /// Lists documents by namespace, name and version.
    ///
    /// # Errors
    /// The token is not one of this list's.
    pub async fn list(&self, page_size: u32, page_token: &str) -> Result<(Vec<Workflow>, String), Error> {
        let after: Option<WorkflowKey> = List::Workflows.cursor(&(), page_token)?;
        let Page { entries, next } = self
            .store
            .workflows(after.as_ref(), page::size(page_size))
            .await?;
        Ok((
            entries,
            next.map(|next| List::Workflows.token(&(), &next))
                .unwrap_or_default(),
        ))
    }
}
