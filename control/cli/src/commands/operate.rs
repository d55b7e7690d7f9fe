//! `warren ps`, `hosts`, `status`: what an operator looks at.

use crate::{screen, shape};
use warren_client::{Client, Outcome};
use warren_proto::v1::{
    DrainHostRequest, Host, ListAllSandboxesRequest, ListHostsRequest, Sandbox, SandboxState, StatusRequest,
};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  warren ps\n  warren ps --function hello --json")]
pub(crate) struct PsOptions {
    /// Only sandboxes of this function.
    #[arg(long, default_value = "", hide_default_value = true)]
    function: String,
}

/// Sandboxes.
pub(crate) async fn ps(options: PsOptions, client: &Client, json: bool) -> Outcome {
    let request = ListAllSandboxesRequest { function: options.function };
    let sandboxes = client.admin().list_all_sandboxes(request).await?.into_inner().sandboxes;
    if json {
        screen::print_json(&sandboxes.iter().map(shape::sandbox).collect());
        return Ok(());
    }
    let rows = sandboxes.iter().map(|sandbox| {
        // A zygote runs no function yet.
        let nobodys = sandbox.state() == SandboxState::Zygote;
        let or_none = |text: String| if nobodys { "-".to_owned() } else { text };
        vec![
            sandbox.id.clone(),
            or_none(format!("{}:{}", sandbox.function, sandbox.version)),
            shape::state(sandbox),
            or_none(began(sandbox).to_owned()),
            sandbox.host_id.clone(),
            format!("{} MiB", sandbox.memory_mib),
            sandbox.invocations.to_string(),
            screen::age(sandbox.age_ms),
            screen::age(sandbox.idle_ms),
            sandbox.pid.to_string(),
        ]
    });
    let header = ["sandbox", "function", "state", "start", "host", "memory", "calls", "age", "idle", "pid"];
    screen::print(&screen::table(&header, &[5, 6, 7, 8, 9], rows.collect()));
    Ok(())
}

fn began(sandbox: &Sandbox) -> &'static str {
    match (sandbox.restored, sandbox.paged) {
        (_, true) => "paged",
        (true, false) => "restored",
        // It may still be: which it was is known once it is up.
        (false, false) if matches!(sandbox.state(), SandboxState::Creating | SandboxState::Initialising) => {
            "-"
        }
        (false, false) => "booted",
    }
}

#[derive(clap::Args)]
pub(crate) struct HostsOptions {
    #[command(subcommand)]
    command: Option<HostsCommand>,
}

#[derive(clap::Subcommand)]
enum HostsCommand {
    /// Take a host out of service: nothing new starts there, idle sandboxes end, running invocations finish. It stays
    /// so over restarts, until `undrain`.
    #[command(after_help = "Examples:\n  warren hosts drain worker-1")]
    Drain {
        /// The host's name, as `warren hosts` shows it.
        host: String,
    },
    /// Put a drained host back into service.
    #[command(after_help = "Examples:\n  warren hosts undrain worker-1")]
    Undrain {
        /// The host's name.
        host: String,
    },
}

/// Worker hosts: all of them, or the one that was drained or put back.
pub(crate) async fn hosts(options: HostsOptions, client: &Client, json: bool) -> Outcome {
    let change = match options.command {
        None => None,
        Some(HostsCommand::Drain { host }) => Some(DrainHostRequest { host, undrain: false }),
        Some(HostsCommand::Undrain { host }) => Some(DrainHostRequest { host, undrain: true }),
    };
    let hosts = match change {
        Some(request) => Vec::from_iter(client.admin().drain_host(request).await?.into_inner().host),
        None => client.admin().list_hosts(ListHostsRequest {}).await?.into_inner().hosts,
    };
    if json {
        screen::print_json(&hosts.iter().map(shape::host).collect());
        return Ok(());
    }
    print_hosts(hosts);
    Ok(())
}

fn print_hosts(hosts: Vec<Host>) {
    let rows = hosts.into_iter().map(|host| {
        let resources = host.resources.unwrap_or_default();
        vec![
            host.id.clone(),
            host.state.clone(),
            host.address.clone(),
            format!("{} of {} MiB", host.free_memory_mib, resources.memory_mib),
            format!("{}.{}", resources.cpu_millis / 1000, resources.cpu_millis % 1000 / 100),
            format!("{} ({} busy)", host.sandboxes, host.busy),
            host.zygotes.map_or(0, |zygotes| zygotes.waiting).to_string(),
            resources.guests.join(", "),
            processor(&resources.cpu_template, &resources.cpu_digest),
            resources.kernel,
        ]
    });
    let header = [
        "host",
        "state",
        "address",
        "free memory",
        "cpus",
        "sandboxes",
        "zygotes",
        "guests",
        "template",
        "kernel",
    ];
    screen::print(&screen::table(&header, &[3, 4], rows.collect()));
}

/// The template of Linux functions there, and which of the fleet's processors that is: hosts that show the same share snapshots of them.
fn processor(template: &str, digest: &str) -> String {
    if template.is_empty() {
        "-".to_owned()
    } else {
        format!("{template} {}", digest.get(..8).unwrap_or(digest))
    }
}

/// The control layer in one glance.
pub(crate) async fn status(client: &Client, json: bool) -> Outcome {
    let status = client.admin().status(StatusRequest {}).await?.into_inner();
    if json {
        screen::print_json(&shape::status(&status));
        return Ok(());
    }
    let line = |name: &str, value: String| format!("{name:<22}{value}\n");
    let mut text = line("version", status.version);
    text += &line("up for", screen::age(status.uptime_ms));
    text += &line("hosts ready", status.hosts_ready.to_string());
    text += &line("functions", status.functions.to_string());
    text += &line("running now", format!("{} of {}", status.running, status.account_concurrency_limit));
    text += &line("invocations", status.invocations.to_string());
    text += &line("epoch", status.epoch.to_string());
    text += &line("memory", screen::bytes(status.rss_bytes));
    screen::print(&text);
    Ok(())
}
