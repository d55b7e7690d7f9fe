//! A running Warren of the bench's own: `warren up` in a folder that goes away with it.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use warren_client::{Client, Config, Wire};
use warren_identity::{HostId, Peer, Service, client_tls};
use warren_proto::v1::{
    CreateFunctionRequest, CreateSandboxRequest, DestroySandboxRequest, FunctionConfig, FunctionLimits,
    FunctionVersion, GetFunctionRequest, InvokeSandboxRequest, InvokeSandboxResponse, ListHostsRequest,
    ListSandboxesRequest, StatusRequest, invoke_service_client::InvokeServiceClient,
    worker_service_client::WorkerServiceClient,
};

/// How long a start or a stop may take before it counts as failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// A client of the system with a connection of its own.
pub(crate) type Invoker = InvokeServiceClient<Wire>;

/// The system.
pub(crate) struct System {
    process: Child,
    config: Config,
    folder: tempfile::TempDir,
}

impl System {
    /// Starts one and waits until it serves.
    pub(crate) async fn start(bin: &Path) -> Result<Self> {
        Self::start_with(bin, &[]).await
    }

    /// Starts one with more arguments for `warren up`.
    pub(crate) async fn start_with(bin: &Path, arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("warren-bench-").tempdir()?;
        // The services run as users of their own and must reach their folders in here.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let config = folder.path().join("client.toml");
        let mut process = Command::new(bin.join("warren"))
            .args(["up", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.path().join("data"))
            .args(arguments)
            .env("WARREN_CONFIG", &config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!("{} does not start: run `cargo xtask build`", bin.join("warren").display())
            })?;
        let stdout = process.stdout.take().context("stdout is a pipe")?;
        let mut lines = BufReader::new(stdout).lines();
        timeout(PATIENCE, async {
            while let Some(line) = lines.next_line().await? {
                if line.starts_with("ready ") {
                    return Ok(());
                }
            }
            anyhow::bail!("warren up ended before it was ready")
        })
        .await
        .context("warren up is not ready after a minute")??;
        // Whatever it says later must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let config = Config::load(&config)?;
        Ok(Self { process, config, folder })
    }

    /// The process of its agent: the child of `warren up` that is called so.
    pub(crate) fn agent(&self) -> Result<i32> {
        let own = self.process.id().context("it ended by itself")?;
        // Of each thread its own.
        let mut children = String::new();
        for thread in fs::read_dir(format!("/proc/{own}/task"))? {
            children += &fs::read_to_string(thread?.path().join("children"))?;
        }
        let is_agent = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "warren-agent")
        };
        let mut children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        children.find(is_agent).context("there is no agent")
    }

    /// A client with a connection of its own.
    pub(crate) async fn invoker(&self) -> Result<Invoker> {
        Ok(Client::connect(&self.config).await?.invoke())
    }

    /// Deploys a module of `functions` under a name.
    pub(crate) async fn deploy(&self, functions: &Path, module: &str, name: &str) -> Result<()> {
        let limits = FunctionLimits { memory_mib: 128, timeout_ms: 10_000, ..FunctionLimits::default() };
        self.deploy_with(functions, module, name, limits).await
    }

    /// Deploys one with limits of its own.
    pub(crate) async fn deploy_with(
        &self,
        functions: &Path,
        module: &str,
        name: &str,
        limits: FunctionLimits,
    ) -> Result<()> {
        let path: PathBuf = functions.join(module).with_extension("wasm");
        let code = fs::read(&path).with_context(|| format!("{}: run `cargo xtask build`", path.display()))?;
        let config = FunctionConfig { limits: Some(limits), ..FunctionConfig::default() };
        let request = CreateFunctionRequest {
            name: name.to_owned(),
            code: code.into(),
            config: Some(config),
            ..Default::default()
        };
        Client::connect(&self.config).await?.functions().create_function(request).await?;
        Ok(())
    }

    /// Waits until so many functions can be brought back from snapshots.
    pub(crate) async fn snapshots(&self, wanted: usize) -> Result<()> {
        let place = self.folder.path().join("data/agent/snapshots");
        let made = async {
            loop {
                let there = fs::read_dir(&place)?.flatten().map(|entry| entry.path());
                if there.filter(|path| path.extension().is_some_and(|it| it == "snapshot")).count() >= wanted
                {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, made).await.context("snapshots are not made within a minute")?
    }

    /// Cold starts that found a zygote, as the last heartbeats said.
    pub(crate) async fn zygotes_adopted(&self) -> Result<u32> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let client = Client::connect(&self.config).await?;
        let hosts = client.admin().list_hosts(ListHostsRequest {}).await?.into_inner().hosts;
        let adopted = hosts.first().and_then(|host| host.zygotes).map_or(0, |zygotes| zygotes.adopted);
        Ok(u32::try_from(adopted)?)
    }

    /// The worker itself, for sandboxes of a deployed function.
    pub(crate) async fn worker(&self, function: &str) -> Result<Worker> {
        let client = Client::connect(&self.config).await?;
        let request = GetFunctionRequest { name: function.to_owned() };
        let version = client.functions().get_function(request).await?.into_inner().latest;
        let epoch = client.admin().status(StatusRequest {}).await?.into_inner().epoch;
        let hosts = client.admin().list_hosts(ListHostsRequest {}).await?.into_inner().hosts;
        let host = hosts.first().context("no host")?;
        let identity = self.folder.path().join("data/identity");
        let tls = client_tls(&identity, Service::Control, &Peer::Worker(HostId::new(host.id.as_str())?))?;
        let channel =
            Endpoint::from_shared(format!("https://{}", host.address))?.tls_config(tls)?.connect_lazy();
        Ok(Worker { client: WorkerServiceClient::new(channel), version, epoch })
    }

    /// Stops it as a person would, and waits.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let id = self.process.id().context("it ended by itself")?;
        let status = Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        ensure!(status.success(), "kill ended with {status}");
        timeout(PATIENCE, self.process.wait()).await.context("warren up does not stop")??;
        Ok(())
    }
}

/// A worker as control sees it, and one version that it runs.
pub(crate) struct Worker {
    client: WorkerServiceClient<Channel>,
    version: Option<FunctionVersion>,
    epoch: u64,
}

impl Worker {
    /// A sandbox of this name, brought back from the version's snapshot.
    pub(crate) async fn create(&self, name: &str) -> Result<()> {
        let request = CreateSandboxRequest {
            sandbox_id: name.to_owned(),
            version: self.version.clone(),
            partition: 0,
            epoch: self.epoch,
        };
        let made = self.client.clone().create_sandbox(request).await?.into_inner();
        ensure!(made.restore_us > 0, "{name} was not restored");
        Ok(())
    }

    /// One event.
    pub(crate) async fn invoke(&self, name: &str) -> Result<()> {
        let answer = self.invoke_with(name, r#"{"name":"bench"}"#, 10_000).await?;
        ensure!(!answer.payload.is_empty(), "{name} answered nothing");
        Ok(())
    }

    /// An event with this payload and so much time: its answer, or how it ended.
    pub(crate) async fn invoke_with(
        &self,
        name: &str,
        payload: &'static str,
        timeout_ms: u32,
    ) -> Result<InvokeSandboxResponse, Status> {
        let request = InvokeSandboxRequest {
            sandbox_id: name.to_owned(),
            request_id: name.to_owned(),
            payload: payload.as_bytes().into(),
            timeout_ms,
            grant_epoch: self.epoch,
            ..InvokeSandboxRequest::default()
        };
        Ok(self.client.clone().invoke_sandbox(request).await?.into_inner())
    }

    /// Ends one; answered when nothing of it is left.
    pub(crate) async fn destroy(&self, name: &str) -> Result<()> {
        let (sandbox_id, reason) = (name.to_owned(), "measured".to_owned());
        let request = DestroySandboxRequest { sandbox_id, epoch: self.epoch, reason };
        self.client.clone().destroy_sandbox(request).await?;
        Ok(())
    }

    /// The process of one sandbox.
    pub(crate) async fn pid(&self, name: &str) -> Result<i32> {
        let listed = self.client.clone().list_sandboxes(ListSandboxesRequest {}).await?.into_inner();
        let found = listed.sandboxes.iter().find(|sandbox| sandbox.id == name);
        Ok(found.with_context(|| format!("no sandbox {name}"))?.pid)
    }

    /// Processes of all sandboxes.
    pub(crate) async fn pids(&self) -> Result<Vec<i32>> {
        let listed = self.client.clone().list_sandboxes(ListSandboxesRequest {}).await?.into_inner();
        Ok(listed.sandboxes.iter().map(|sandbox| sandbox.pid).collect())
    }
}
