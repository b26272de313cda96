//! `muster.workflow.v1.BackupService`: ask, encode.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use muster_api::workflow as proto;
use muster_api::workflow::backup_service_server::BackupService;
use tonic::{Request, Response, Status};

use crate::backup;

/// `muster.workflow.v1.BackupService`.
pub struct Backups {
    backups: backup::Backups,
}

impl Backups {
    /// Serves backups of this store.
    #[must_use]
    pub fn new(backups: backup::Backups) -> Self {
        Self { backups }
    }
}

#[tonic::async_trait]
impl BackupService for Backups {
    type BackupStream = Pin<Box<dyn Stream<Item = Result<proto::BackupResponse, Status>> + Send>>;

    async fn backup(
        &self,
        _request: Request<proto::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let chunks = self.backups.begin()?;
        let chunks = chunks.map(|chunk| Ok(proto::BackupResponse { chunk: chunk? }));
        Ok(Response::new(Box::pin(chunks)))
    }
}
