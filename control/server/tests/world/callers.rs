//! Who may call what: every method of every service there is, by everybody there is, at each server, in one table, and how it is tried.
//!
//! A method is called by its path with a message as bytes: so somebody calls who has this certificate or that token and knows nothing
//! else. All methods there are the protos name.

use Verdict::{Absent, Closed, In, NoToken, Role};
use bytes::{Buf, BufMut};
use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, ClientTlsConfig, Endpoint},
};
use warren_identity::{
    CERTIFICATE_LIFETIME, HostId, LocalIdentity, Peer, Service, client_tls, ensure_local_at, user_tls,
};

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was judged on its merits: the caller may call it.
    In,
    /// Nobody without a good token may.
    NoToken,
    /// Not with this certificate, or with none.
    Role,
    /// The server has no such method.
    Absent,
    /// There is no connection for such a caller.
    Closed,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal {
    /// No certificate, no token.
    Nobody,
    /// A token of the right form that was never given to anybody.
    Stranger,
    /// A person's token.
    Client,
    /// A worker, about itself.
    Worker,
    /// The worker `w2`, about that one.
    OtherWorker,
    /// Control.
    Control,
    /// The most that another CA can certify: control, or a worker.
    Foreign,
    /// The same of our CA, a month ago.
    Expired,
}

/// All of them.
pub const PRINCIPALS: [Principal; 8] = [
    Principal::Nobody,
    Principal::Stranger,
    Principal::Client,
    Principal::Worker,
    Principal::OtherWorker,
    Principal::Control,
    Principal::Foreign,
    Principal::Expired,
];

/// Verdicts in the order of [`PRINCIPALS`]: nobody, a stranger, a client, the worker, another worker, control, foreign, expired.
pub type Row = [Verdict; 8];

/// At control: people's. A token, and nothing else, opens them.
const PEOPLE: Row = [NoToken, NoToken, In, NoToken, NoToken, NoToken, Closed, Closed];
/// A worker's about itself.
const ITSELF: Row = [Role, Role, Role, In, Role, Role, Closed, Closed];
/// Any worker's.
const WORKERS: Row = [Role, Role, Role, In, In, Role, Closed, Closed];
/// Served elsewhere.
const NOT_AT_CONTROL: Row = [Absent, Absent, Absent, Absent, Absent, Absent, Closed, Closed];
/// Everybody's who gets a connection: whether it serves.
const OPEN_AT_CONTROL: Row = [In, In, In, In, In, In, Closed, Closed];
/// At agents, which know nobody without a certificate: control's.
const CONTROLS: Row = [Closed, Closed, Closed, Role, Role, In, Closed, Closed];
/// Any worker's.
const NEIGHBOURS: Row = [Closed, Closed, Closed, In, In, Role, Closed, Closed];
/// Served elsewhere.
const NOT_AT_AGENTS: Row = [Closed, Closed, Closed, Absent, Absent, Absent, Closed, Closed];
/// Everybody's who gets a connection.
const OPEN_AT_AGENTS: Row = [Closed, Closed, Closed, In, In, In, Closed, Closed];

/// Service, methods, at control, at agents.
type Rows = (&'static str, &'static [&'static str], Row, Row);

/// All of Warren's.
pub const TABLE: &[Rows] = &[
    ("warren.v1.InvokeService", &["Invoke", "InvokeStream"], PEOPLE, NOT_AT_AGENTS),
    (
        "warren.v1.FunctionService",
        &[
            "CreateFunction",
            "UpdateFunction",
            "CreateFunctionStream",
            "UpdateFunctionStream",
            "GetFunction",
            "ListFunctions",
            "DeleteFunction",
            "Logs",
        ],
        PEOPLE,
        NOT_AT_AGENTS,
    ),
    (
        "warren.v1.AdminService",
        &[
            "ListAllSandboxes",
            "ListHosts",
            "DrainHost",
            "ListPolicies",
            "RetryPolicies",
            "ExplainPolicy",
            "Status",
            "ListAllSnapshots",
            "VerifyHostSnapshot",
            "MapHostSnapshot",
            "RemoveHostSnapshot",
        ],
        PEOPLE,
        NOT_AT_AGENTS,
    ),
    ("warren.v1.FleetService", &["RegisterWorker", "Heartbeat"], ITSELF, NOT_AT_AGENTS),
    ("warren.v1.FleetService", &["FetchBlob"], WORKERS, NOT_AT_AGENTS),
    (
        "warren.v1.WorkerService",
        &[
            "PrepareVersion",
            "CompilePolicy",
            "CreateSandbox",
            "DestroySandbox",
            "ListSandboxes",
            "InvokeSandbox",
            "InvokeSandboxStream",
            "Retain",
            "WorkerLogs",
            "ListSnapshots",
            "MakeSnapshot",
            "VerifySnapshot",
            "MapSnapshot",
            "RemoveSnapshot",
        ],
        NOT_AT_CONTROL,
        CONTROLS,
    ),
    ("warren.chunks.v1.Chunks", &["Get", "Offer"], NOT_AT_CONTROL, NEIGHBOURS),
];

/// Of other projects' protos.
const STANDARD: &[Rows] = &[("grpc.health.v1.Health", &["Check"], OPEN_AT_CONTROL, OPEN_AT_AGENTS)];

/// Has everybody call everything at one server; how many calls there were, and which ended otherwise than their row says.
pub async fn everybody_calls_everything(callers: &Callers, to: &Peer, address: &str) -> (u32, Vec<String>) {
    let (mut tries, mut wrong) = (0, Vec::new());
    for (at, who) in PRINCIPALS.into_iter().enumerate() {
        let token = callers.token(who);
        let channel = callers.connect(who, to, address).await;
        for (service, methods, control, agents) in TABLE.iter().chain(STANDARD) {
            let row = if *to == Peer::Control { control } else { agents };
            // Who is refused is so before a message of his is read, so one that is none changes nothing; but of whom a worker speaks
            // is in the message.
            let is_read = row[at] == In || (who == Principal::OtherWorker && *row == ITSELF);
            let name = callers.host.as_str().as_bytes();
            let about = match *row {
                ITSELF => [b"\x0a", &[u8::try_from(name.len()).unwrap()][..], name].concat(),
                _ => Vec::new(),
            };
            let messages = [about, b"\xff\xff\xff".to_vec()];
            for method in *methods {
                let path = format!("/{service}/{method}");
                for message in &messages[..if is_read { 1 } else { 2 }] {
                    tries += 1;
                    let verdict = call(channel.clone(), &path, message, token.as_deref()).await;
                    if verdict != row[at] {
                        wrong.push(format!(
                            "{who:?} calls {path} with {message:?}: {verdict:?}, not {:?}",
                            row[at]
                        ));
                    }
                }
            }
        }
    }
    (tries, wrong)
}

/// What all of them have to show.
pub struct Callers {
    host: HostId,
    ours: std::path::PathBuf,
    local: LocalIdentity,
    other: TempDir,
    foreign: TempDir,
    expired: TempDir,
}

impl Callers {
    /// Of the fleet whose CA, and whose worker of this name, is in this identity directory.
    pub fn of(ours: &Path, host: &HostId) -> Self {
        let now = SystemTime::now();
        let local = ensure_local_at(ours, Some(host.clone()), now).unwrap();
        let beside = |host: HostId, ours: Option<&Path>, at: SystemTime| {
            let dir = TempDir::new().unwrap();
            for name in ["ca.pem", "ca.key"] {
                if let Some(from) = ours {
                    fs::copy(from.join(name), dir.path().join(name)).unwrap();
                }
            }
            ensure_local_at(dir.path(), Some(host), at).unwrap();
            dir
        };
        let other = beside(HostId::new("w2").unwrap(), Some(ours), now);
        let expired = beside(host.clone(), Some(ours), now - CERTIFICATE_LIFETIME - Duration::from_mins(1));
        let foreign = beside(host.clone(), None, now);
        // They know whom they call.
        fs::copy(ours.join("ca.pem"), foreign.path().join("ca.pem")).unwrap();
        Self { host: host.clone(), ours: ours.to_owned(), local, other, foreign, expired }
    }

    /// A connection to whoever serves at this address.
    pub async fn connect(&self, who: Principal, to: &Peer, address: &str) -> Option<Channel> {
        // Who shows a false certificate shows the one that would open most.
        let most = if *to == Peer::Control { Service::Agent } else { Service::Control };
        let shows = |dir: &Path, service| client_tls(dir, service, to).unwrap();
        let tls: ClientTlsConfig = match who {
            Principal::Nobody | Principal::Stranger | Principal::Client => {
                user_tls(&self.local.ca_pem).domain_name(to.server_name())
            }
            Principal::Worker => shows(&self.ours, Service::Agent),
            Principal::OtherWorker => shows(self.other.path(), Service::Agent),
            Principal::Control => shows(&self.ours, Service::Control),
            Principal::Foreign => shows(self.foreign.path(), most),
            Principal::Expired => shows(self.expired.path(), most),
        };
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.ok()
    }

    /// The token that it sends, if it sends one.
    pub fn token(&self, who: Principal) -> Option<String> {
        match who {
            Principal::Stranger => Some("0".repeat(64)),
            Principal::Client => Some(self.local.token.reveal().to_owned()),
            _ => None,
        }
    }
}

/// Calls `/SERVICE/METHOD` and waits for its first answer.
pub async fn call(channel: Option<Channel>, path: &str, message: &[u8], token: Option<&str>) -> Verdict {
    let Some(channel) = channel else { return Closed };
    let mut client = tonic::client::Grpc::new(channel);
    if client.ready().await.is_err() {
        return Closed;
    }
    let mut request = Request::new(message.to_vec());
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    // A follower's stream has no first answer for long: that is one that was let in.
    request.set_timeout(Duration::from_secs(20));
    let path = PathAndQuery::try_from(path).unwrap();
    match client.server_streaming(request, path, Raw).await {
        Err(status) => verdict(&status),
        Ok(mut answers) => match answers.get_mut().message().await {
            Err(status) => verdict(&status),
            Ok(_) => In,
        },
    }
}

fn verdict(status: &Status) -> Verdict {
    // A refused certificate shows when a request meets the closed connection: something of the transport's own, without details.
    let bare = status.details().is_empty();
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal if bare => Closed,
        Code::Unauthenticated => NoToken,
        Code::PermissionDenied => Role,
        Code::Unimplemented => Absent,
        _ => In,
    }
}

/// Every method of every service in a folder of protos: the service's whole name, and the method's.
pub fn methods_in(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap();
        let package =
            text.lines().find_map(|line| line.strip_prefix("package ")).unwrap().trim_end_matches(';');
        let mut service = String::new();
        for line in text.lines() {
            let mut words =
                line.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
            match (words.next(), words.next()) {
                (Some("service"), Some(name)) if line.starts_with("service") => {
                    service = format!("{package}.{name}");
                }
                (Some("rpc"), Some(name)) if line.trim_start().starts_with("rpc ") => {
                    found.push((service.clone(), name.to_owned()));
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Messages as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        from.advance(from.remaining());
        Ok(Some(()))
    }
}
