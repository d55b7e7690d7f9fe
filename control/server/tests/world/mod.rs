//! The real `warren-control` process, real TLS, real clients; and a worker whose sandboxes do what a payload says,
//! so that each way a worker can fail comes when a test wants it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests, where a panic is the report")]
#![allow(unreachable_pub, missing_docs, reason = "a module that several suites include")]
#![allow(dead_code, reason = "each suite uses a part")]

pub mod callers;
mod worker;

#[allow(unused_imports, reason = "each suite uses a part")]
pub use worker::ScriptedWorker;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tonic::{
    Code, Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use warren_identity::{HostId, LocalIdentity, ensure_local_at, user_tls};
use warren_proto::{
    error::{Fault, WireError},
    v1::{
        CreateFunctionRequest, Function, FunctionConfig, FunctionLimits, InvokeRequest, InvokeResponse,
        admin_service_client::AdminServiceClient, function_service_client::FunctionServiceClient,
        invoke_service_client::InvokeServiceClient,
    },
};

/// Adds the token.
#[derive(Clone)]
pub struct Token(String);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.0).parse().unwrap());
        Ok(request)
    }
}

type Wired = InterceptedService<Channel, Token>;

pub struct World {
    pub dir: TempDir,
    pub identity: LocalIdentity,
    pub control: SocketAddr,
    account: u32,
    child: Child,
}

impl World {
    /// Starts control with this account limit.
    pub fn start(account: u32) -> Self {
        let dir = TempDir::new().unwrap();
        let host = Some(HostId::new("w1").unwrap());
        let identity =
            ensure_local_at(&dir.path().join("identity"), host, std::time::SystemTime::now()).unwrap();
        let (child, control) = spawn(dir.path(), account);
        Self { dir, identity, control, account, child }
    }

    pub fn identity_dir(&self) -> PathBuf {
        self.dir.path().join("identity")
    }

    /// The identity of another host of the same fleet.
    pub fn identity_of(&self, host: &str) -> PathBuf {
        let dir = self.dir.path().join(host);
        std::fs::create_dir(&dir).unwrap();
        for file in ["ca.pem", "ca.key"] {
            std::fs::copy(self.identity_dir().join(file), dir.join(file)).unwrap();
        }
        ensure_local_at(&dir, Some(HostId::new(host).unwrap()), std::time::SystemTime::now()).unwrap();
        dir
    }

    /// kill -9, and a new process on the same data.
    pub fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.child, self.control) = spawn(self.dir.path(), self.account);
    }

    /// SIGTERM; returns whether the process ended well.
    pub fn terminate(&mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }

    pub fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("https://{}", self.control)).unwrap();
        endpoint.tls_config(user_tls(&self.identity.ca_pem)).unwrap().connect_lazy()
    }

    fn token(&self) -> Token {
        Token(self.identity.token.reveal().to_owned())
    }

    pub fn functions(&self) -> FunctionServiceClient<Wired> {
        FunctionServiceClient::with_interceptor(self.channel(), self.token())
            .max_encoding_message_size(usize::MAX)
    }

    pub fn invokes(&self) -> InvokeServiceClient<Wired> {
        InvokeServiceClient::with_interceptor(self.channel(), self.token())
            .max_encoding_message_size(usize::MAX)
    }

    pub fn admin(&self) -> AdminServiceClient<Wired> {
        AdminServiceClient::with_interceptor(self.channel(), self.token())
    }

    pub async fn create(&self, name: &str, reserved: Option<u32>) -> Result<Function, WireError> {
        let limits =
            FunctionLimits { reserved_concurrency: reserved, timeout_ms: 2000, ..Default::default() };
        let config = FunctionConfig { limits: Some(limits), ..Default::default() };
        let request = CreateFunctionRequest {
            name: name.to_owned(),
            code: b"module".as_slice().into(),
            config: Some(config),
            ..Default::default()
        };
        wire(self.functions().create_function(request).await)
    }

    pub async fn invoke(&self, function: &str, payload: &str) -> Result<InvokeResponse, WireError> {
        wire(self.invokes().invoke(request(function, payload)).await)
    }

    /// Asks until the answer is as wanted: state that control learns from a worker's next report.
    pub async fn until<T, F: Future<Output = T>>(
        &self,
        ask: impl Fn() -> F,
        wanted: impl Fn(&T) -> bool,
    ) -> T {
        let patience = async {
            loop {
                let answer = ask().await;
                if wanted(&answer) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), patience).await.expect("it never came about")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _already_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

pub fn request(function: &str, payload: &str) -> InvokeRequest {
    InvokeRequest {
        function: function.to_owned(),
        payload: payload.as_bytes().to_vec().into(),
        ..Default::default()
    }
}

pub fn wire<T>(answer: Result<tonic::Response<T>, Status>) -> Result<T, WireError> {
    answer.map(tonic::Response::into_inner).map_err(|status| WireError::from_status(&status))
}

/// One row of the table of errors.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(answer: Result<T, WireError>, code: Code, reason: &str, fault: Fault) {
    let error = answer.expect_err(reason);
    assert_eq!((error.code, error.reason.as_str(), error.fault), (code, reason, fault), "{}", error.message);
    assert!(!error.message.is_empty());
}

fn spawn(dir: &Path, account: u32) -> (Child, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_warren-control"))
        .arg("--data")
        .arg(dir.join("control"))
        .arg("--identity")
        .arg(dir.join("identity"))
        .args(["--listen", "127.0.0.1:0", "--account-concurrency", &account.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("ready listen=").expect("a ready line").parse().unwrap();
    (child, address)
}
