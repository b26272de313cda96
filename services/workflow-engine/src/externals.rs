//! What a document refers to and does not contain: obtained when a run is accepted, and pinned with it.
//!
//! A run must do tomorrow what its document said today. Therefore functions of catalogs and schemas at addresses are read once,
//! before the run is acknowledged, and become a part of what it is pinned to.

use std::sync::Arc;

use muster_workflow_dsl::request::Destination;
use muster_workflow_dsl::secret::Nonce;
use muster_workflow_dsl::{Definition, Resources};

use crate::caller::session::Session;
use crate::caller::web::Web;
use crate::definitions::Definitions;
use crate::error::Error;
use crate::secrets::{Grant, Secrets};

/// How often what was obtained may ask for more.
const MOST_ROUNDS: usize = 5;

/// How long obtaining one may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Reads what documents refer to.
pub(crate) struct Externals {
    web: Arc<Web>,
    secrets: Arc<Secrets>,
}

impl Externals {
    pub(crate) fn new(web: Arc<Web>, secrets: Arc<Secrets>) -> Self {
        Self { web, secrets }
    }

    /// Everything that runs of a document need besides it, and the definition that is complete with it.
    pub(crate) async fn obtain(
        &self,
        definitions: &Definitions,
        document: &str,
        mut definition: Arc<Definition>,
    ) -> Result<(Resources, Arc<Definition>), Error> {
        let mut resources = Resources::new();
        for _ in 0..MOST_ROUNDS {
            let missing = definition.workflow.external.clone();
            if missing.is_empty() {
                return Ok((resources, definition));
            }
            let failed = |name: &str, why: String| Error::Unobtained {
                name: name.to_owned(),
                why,
            };
            let grant = Grant::new(&definition, &Nonce::fresh());
            for external in missing {
                let name = external.name.as_str();
                let destination = Destination::written(&external.endpoint)
                    .ok_or_else(|| failed(name, "its address is not written out".to_owned()))?;
                let read = async {
                    let mut session = Session::open(&self.secrets, &grant).await?;
                    let text = self.web.document(&destination, &mut session).await;
                    text.map_err(|failure| session.redaction().failure(failure))
                };
                let text = tokio::time::timeout(PATIENCE, read)
                    .await
                    .map_err(|_| failed(name, "it was not answered in time".to_owned()))?
                    .map_err(|failure| failed(name, failure.detail))?;
                resources.insert(external.name.clone(), text.to_string());
            }
            definition = definitions
                .pinned(document, &resources)
                .await
                .map_err(Error::InvalidWorkflow)?
                .definition;
        }
        Err(Error::Unobtained {
            name: definition
                .workflow
                .external
                .first()
                .map(|external| external.name.clone())
                .unwrap_or_default(),
            why: format!("what is elsewhere refers to more elsewhere, more than {MOST_ROUNDS} deep"),
        })
    }
}
