//! Calls of a test on one host.

use super::{Client, Rig, until};
use std::sync::atomic::{AtomicU32, Ordering};
use tonic::Status;
use warren_proto::v1;

/// Calls of a test on one host.
pub(crate) struct Caller {
    pub(crate) client: Client,
    requests: AtomicU32,
}

impl Caller {
    pub(crate) async fn new(rig: &Rig) -> Self {
        Self { client: rig.client().await, requests: AtomicU32::new(0) }
    }

    pub(crate) async fn prepare(
        &self,
        version: &v1::FunctionVersion,
        code: &[u8],
        task: &[u8],
    ) -> Result<v1::PrepareVersionResponse, Status> {
        let (code, task) = (code.to_vec().into(), task.to_vec().into());
        let request = v1::PrepareVersionRequest { version: Some(version.clone()), code, task };
        self.client.clone().prepare_version(request).await.map(tonic::Response::into_inner)
    }

    /// Has the snapshot of a prepared version made.
    pub(crate) async fn publish(
        &self,
        version: &v1::FunctionVersion,
    ) -> Result<v1::MakeSnapshotResponse, Status> {
        let request = v1::MakeSnapshotRequest { version: Some(version.clone()) };
        self.client.clone().make_snapshot(request).await.map(tonic::Response::into_inner)
    }

    /// What the host knows of a function's snapshots.
    pub(crate) async fn snapshots(&self, function: &str) -> Vec<v1::Snapshot> {
        let request = v1::ListSnapshotsRequest { function: function.to_owned() };
        self.client.clone().list_snapshots(request).await.unwrap().into_inner().snapshots
    }

    pub(crate) async fn create(
        &self,
        id: &str,
        version: &v1::FunctionVersion,
    ) -> Result<v1::CreateSandboxResponse, Status> {
        self.create_in(id, version, 1).await
    }

    pub(crate) async fn create_in(
        &self,
        id: &str,
        version: &v1::FunctionVersion,
        epoch: u64,
    ) -> Result<v1::CreateSandboxResponse, Status> {
        let request = v1::CreateSandboxRequest {
            sandbox_id: id.to_owned(),
            version: Some(version.clone()),
            partition: 0,
            epoch,
        };
        self.client.clone().create_sandbox(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) fn request(&self, id: &str, payload: &[u8]) -> v1::InvokeSandboxRequest {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        v1::InvokeSandboxRequest {
            sandbox_id: id.to_owned(),
            request_id: format!("r-{number}"),
            payload: payload.to_vec().into(),
            want_log: true,
            grant_id: 7,
            grant_epoch: 1,
            ..v1::InvokeSandboxRequest::default()
        }
    }

    pub(crate) async fn invoke(&self, id: &str, payload: &[u8]) -> Result<v1::InvokeSandboxResponse, Status> {
        let request = self.request(id, payload);
        self.client.clone().invoke_sandbox(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn destroy(&self, id: &str, epoch: u64) -> Result<(), Status> {
        let request =
            v1::DestroySandboxRequest { sandbox_id: id.to_owned(), epoch, reason: "test".to_owned() };
        self.client.clone().destroy_sandbox(request).await.map(|_| ())
    }

    pub(crate) async fn list(&self) -> Vec<v1::Sandbox> {
        let listed = self.client.clone().list_sandboxes(v1::ListSandboxesRequest {}).await.unwrap();
        listed.into_inner().sandboxes
    }

    pub(crate) async fn find(&self, id: &str) -> Option<v1::Sandbox> {
        self.list().await.into_iter().find(|sandbox| sandbox.id == id)
    }

    pub(crate) async fn until_state(&self, id: &str, state: v1::SandboxState) -> v1::Sandbox {
        let what = format!("{id} is {}", state.as_str_name());
        until(&what, async || self.find(id).await.filter(|sandbox| sandbox.state() == state)).await
    }

    pub(crate) async fn until_gone(&self, id: &str) {
        until(&format!("{id} is gone"), async || self.find(id).await.is_none().then_some(())).await;
    }

    pub(crate) async fn logs(&self, function: &str) -> Vec<String> {
        let request = v1::LogsRequest { function: function.to_owned(), follow: false, tail: 1000 };
        let mut stream = self.client.clone().worker_logs(request).await.unwrap().into_inner();
        let mut lines = Vec::new();
        while let Some(line) = stream.message().await.unwrap() {
            lines.push(line.text);
        }
        lines
    }
}
