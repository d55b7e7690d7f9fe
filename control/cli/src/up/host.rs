//! The processes of one machine, started in order and stopped in reverse.

use super::{
    Children, Options, READY_WITHIN, Stop,
    child::{Spec, Supervised},
    identity::Identity,
    jailer::Jailer,
    layout::{self, Layout},
    leftovers, probe,
    programs::Programs,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use warren_client::{Client, Config, Failure, Outcome};
use warren_image::Shelf;
use warren_proto::v1::ListHostsRequest;

/// How often to look whether the worker has registered.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Who asks for objects of an origin in S3, and where that is.
const AGENT_ENVIRONMENT: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_CA_BUNDLE",
];

/// One machine's Warren.
pub(crate) struct Host {
    layout: Layout,
    programs: Programs,
    jailer: Jailer,
    listen: SocketAddr,
    agent_listen: SocketAddr,
    control_extra: Vec<String>,
    agent_extra: Vec<String>,
    guests: Vec<PathBuf>,
    cpu_template: Option<String>,
    children: Children,
}

impl Host {
    /// Finds the programs and clears away what an earlier run left.
    pub(crate) fn new(options: &Options, layout: Layout, jailer: Jailer) -> Outcome<Self> {
        let programs = Programs::find(&layout, jailer.users().is_some())?;
        leftovers::end_of_directory(&layout.path(""));
        // The prepared jailer's memory is bounded; promising more of it to control would only be refused later.
        let memory_mib = match &jailer {
            Jailer::Prepared(found) => {
                let wanted = options.memory_mib.or_else(available_mib);
                Some(wanted.unwrap_or(u64::MAX).min(found.memory_mib))
            }
            Jailer::Own { .. } => options.memory_mib,
        };
        let guests = match &options.guests {
            Some(only) => vec![only.clone()],
            None => vec![layout.root().to_owned(), PathBuf::from(Shelf::MACHINE)],
        };
        let port = if options.listen.port() == 0 { 0 } else { 7_071 };
        let number = |name: &str, value: Option<u64>| value.map(|value| format!("--{name}={value}"));
        let origin = options.snapshot_origin.as_deref();
        if let Some(folder) = origin.filter(|origin| !origin.contains("://")) {
            layout::shared(Path::new(folder), jailer.users().map(|users| users.agent))?;
        }
        Ok(Self {
            layout,
            programs,
            jailer,
            listen: options.listen,
            agent_listen: options
                .agent_listen
                .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            control_extra: [
                number("account-concurrency", options.account_concurrency.map(u64::from)),
                number("collect-seconds", options.collect_seconds),
            ]
            .into_iter()
            .flatten()
            .collect(),
            agent_extra: [
                number("memory-mib", memory_mib),
                number("idle-ms", options.idle_ms),
                number("snapshots-mib", options.snapshots_mib),
                number("zygotes-mib", options.zygotes_mib),
                number("snapshot-min-generation", options.snapshot_min_generation.map(u64::from)),
                origin.map(|origin| format!("--snapshot-origin={origin}")),
                options.cpu_template.as_ref().map(|name| format!("--cpu-template={name}")),
                number("network-mbit", options.network_mbit.map(|it| it.get().into())),
                number("disk-mib", options.disk_mib.map(|it| it.get().into())),
                number("disk-iops", options.disk_iops.map(|it| it.get().into())),
            ]
            .into_iter()
            .flatten()
            .collect(),
            guests,
            cpu_template: options.cpu_template.clone(),
            children: Children::new(),
        })
    }

    /// Where everything is kept.
    pub(crate) fn data(&self) -> &Path {
        self.layout.root()
    }

    /// Identity, jailer, control, agent. Gives what a client needs.
    pub(crate) async fn start(&mut self) -> Outcome<Config> {
        let identity = self.identity().ensure()?;
        let probe = probe::ask(&self.programs, &self.layout.path("probe.json")).await;
        if let (Some(probe), Some(template)) = (&probe, &self.cpu_template) {
            probe.check(template)?;
        }
        // Nobody's network is touched for guests that the machine cannot run.
        let linux = probe.as_ref().is_some_and(|probe| probe.linux);
        if let Some(spec) = self.own_jailer(linux) {
            self.child(spec).await?;
        }
        let listen = self.child(self.control()).await?.unwrap_or(self.listen);
        let reached = reachable(listen);
        self.child(self.agent(reached, probe.map(|probe| probe.file))).await?;
        Ok(Config {
            endpoint: format!("https://{reached}"),
            token: identity.token.reveal().to_owned(),
            ca_pem: identity.ca_pem,
        })
    }

    /// Waits until a worker host is ready to take sandboxes.
    pub(crate) async fn wait_for_worker(&self, client: &Client) -> Outcome {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let hosts = client.admin().list_hosts(ListHostsRequest {}).await;
            if let Ok(hosts) = &hosts
                && hosts.get_ref().hosts.iter().any(|host| host.state == "ready")
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                hosts?;
                let log = self.layout.path("log/agent.log");
                return Err(Failure::local(format!("the agent did not register; see {}", log.display())));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Keeps certificates in time, until a watcher has given up on its process.
    pub(crate) async fn first_failure(&mut self) -> Failure {
        let identity = self.identity();
        let mut pending: Vec<_> = self.children.iter_mut().map(|child| Box::pin(child.failed())).collect();
        let failed = std::future::poll_fn(move |context| {
            for failure in &mut pending {
                if let std::task::Poll::Ready(failure) = failure.as_mut().poll(context) {
                    return std::task::Poll::Ready(failure);
                }
            }
            std::task::Poll::Pending
        });
        tokio::select! {
            failure = failed => failure,
            () = identity.keep() => Failure::local("certificates are renewed no longer"),
        }
    }

    /// Agent, control, the jailer if it is this run's; then looks whether anything is left. A second signal ends the patience.
    pub(crate) async fn stop(mut self, impatience: &mut Stop) -> Outcome {
        let order = async {
            while let Some(child) = self.children.pop() {
                child.stop().await;
            }
        };
        tokio::select! {
            () = order => {}
            () = impatience.wait() => return Err(Failure::Interrupted),
        }
        let (base, count) = self.jailer.uids();
        let left = leftovers::of_users(base, count);
        if left.is_empty() {
            return Ok(());
        }
        let list: Vec<_> =
            left.iter().map(|process| format!("{} (uid {})", process.pid, process.uid)).collect();
        Err(Failure::local(format!("sandbox processes are left after the stop: {}", list.join(", "))))
    }

    async fn child(&mut self, spec: Spec) -> Outcome<Option<SocketAddr>> {
        let mut child = Supervised::start(spec);
        let ready = child.ready(READY_WITHIN).await;
        self.children.push(child);
        ready
    }

    fn identity(&self) -> Identity {
        Identity { directory: self.layout.path("identity"), users: self.jailer.users() }
    }

    /// Root's; a prepared one runs already.
    fn own_jailer(&self, linux: bool) -> Option<Spec> {
        let Jailer::Own { uid_base, slots, network, favordynmods } = &self.jailer else { return None };
        let agent = self.jailer.users()?.agent;
        let network = if linux { network.clone() } else { Vec::new() };
        let arguments = vec![
            "serve".into(),
            self.flag("socket", "run/jailer.sock"),
            self.flag("state", "jailer"),
            format!("--agent-uid={agent}"),
            format!("--uid-base={uid_base}"),
            format!("--slots={slots}"),
        ];
        let favordynmods = favordynmods.then(|| "--favordynmods".into());
        let arguments = arguments.into_iter().chain(network).chain(favordynmods).collect();
        Some(self.spec("jailer", arguments, None, None))
    }

    fn control(&self) -> Spec {
        let mut arguments = vec![self.flag("data", "control"), self.flag("identity", "identity")];
        arguments.extend(self.control_extra.iter().cloned());
        self.spec("control", arguments, Some(self.listen), self.jailer.users().map(|users| users.control))
    }

    fn agent(&self, control: SocketAddr, probe: Option<PathBuf>) -> Spec {
        let mut arguments = vec![
            self.flag("data", "agent"),
            self.flag("identity", "identity"),
            match &self.jailer {
                Jailer::Own { .. } => self.flag("jailer", "run/jailer.sock"),
                Jailer::Prepared(found) => format!("--jailer={}", found.socket.display()),
            },
            format!("--control=https://{control}"),
        ];
        arguments.extend(self.guests.iter().map(|place| format!("--guests={}", place.display())));
        arguments.extend(probe.map(|file| format!("--probe={}", file.display())));
        arguments.extend(self.agent_extra.iter().cloned());
        self.spec("agent", arguments, Some(self.agent_listen), self.jailer.users().map(|users| users.agent))
    }

    fn flag(&self, name: &str, part: &str) -> String {
        format!("--{name}={}", self.layout.path(part).display())
    }

    fn spec(
        &self,
        name: &'static str,
        arguments: Vec<String>,
        listen: Option<SocketAddr>,
        uid: Option<u32>,
    ) -> Spec {
        let program = self.programs.path(&format!("warren-{name}"));
        let environment = if name == "agent" { AGENT_ENVIRONMENT } else { &[] };
        let log = self.layout.path(&format!("log/{name}.log"));
        Spec { name, program, arguments, environment, listen, uid, log }
    }
}

/// What the agent would choose by itself: nine tenths of what is free now.
fn available_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024 / 10 * 9)
}

/// Where a local client reaches a server that listens there.
fn reachable(listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() { SocketAddr::from((Ipv4Addr::LOCALHOST, listen.port())) } else { listen }
}
