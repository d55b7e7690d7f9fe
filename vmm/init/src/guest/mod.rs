//! The guest around the supervisor: what only a first process can do.
//!
//! ```text
//!  boot:       root (read-only) + scratch disk ──▶ overlay is /; /tmp and /var/task are folders of the scratch disk
//!              loopback up, vsock port 1 listens; from here on it can be written down, and brought back with another task disk
//!  Configure:  time, host name, network, names ──▶ files of the function unpacked, then read-only ──▶ /tmp's quota
//!  programs:   a user of their own, no new privileges
//!  Restored:   randomness, time, name, ports of its own ([`renew`])
//! ```

pub(crate) mod disks;
mod network;
mod renew;
mod task;
#[cfg(test)]
mod tests;

use crate::Failure;
use crate::serve::{Setup, Unprepared, places::Places};
use crate::settings::Settings;
use network::Link;
use rustix::process::{Resource, Rlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs;
use std::io::Result as IoResult;
use warren_vmm_protocol::guest::{GuestConfig, InitFailure, PORT};

/// The port of the API, as on Lambda.
const API_PORT: u16 = 9001;
/// Any address of this machine (vm_sockets.h, VMADDR_CID_ANY).
const CID_ANY: u32 = u32::MAX;
/// As on Lambda: descriptors of a process, processes and threads of the function.
const FILES_MAX: u64 = 1024;
const PROCESSES_MAX: u64 = 1024;

/// Serves the function of this guest to its end.
pub(crate) fn serve(settings: &Settings) -> Result<(), Failure> {
    Link::Loopback.up().map_err(Failure::of("bring the loopback up"))?;
    rustix::thread::set_no_new_privs(true).map_err(Failure::of("give up new privileges"))?;
    // Spared when memory runs out; what is started loses that again.
    fs::write("/proc/self/oom_score_adj", "-1000").map_err(Failure::of("set the oom score"))?;
    for (resource, most) in [(Resource::Nofile, FILES_MAX), (Resource::Nproc, PROCESSES_MAX)] {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(Failure::of("set limits"))?;
    }
    let listener = listen().map_err(Failure::of("listen on vsock"))?;
    let setup = Setup {
        listener: listener.into(),
        places: Places::guest(),
        guest: true,
        holds: !settings.restless,
        api_port: API_PORT,
        renew: renew::renew,
    };
    crate::say!("waiting for the host");
    crate::serve::run(setup, |config| prepare(settings, config)).map_err(Failure::of("serve"))
}

fn listen() -> IoResult<Socket> {
    let socket = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
    socket.bind(&SockAddr::vsock(CID_ANY, PORT))?;
    socket.listen(4)?;
    Ok(socket)
}

/// Makes the guest what the host wants it to be.
fn prepare(settings: &Settings, config: &GuestConfig) -> Result<(), Unprepared> {
    if config.wall_unix_ns != 0 {
        crate::serve::time::set(config.wall_unix_ns);
    }
    fs::write("/dev/urandom", config.seed).map_err(guest_failure("mix the host's randomness in"))?;
    name(config.sandbox.as_str())?;
    if let Some(network) = &config.network {
        network::configure(network).map_err(guest_failure("configure the network"))?;
        let line = |server: &[u8; 4]| format!("nameserver {}\n", std::net::Ipv4Addr::from(*server));
        let servers: String = network.nameservers.iter().take(3).map(line).collect();
        fs::write("/etc/resolv.conf", servers).map_err(guest_failure("write /etc/resolv.conf"))?;
    }
    if config.task_len > 0 {
        let mut disk = fs::File::open(&settings.task).map_err(guest_failure("open the task disk"))?;
        disks::await_bytes(&mut disk, config.task_len).map_err(guest_failure("wait for the task disk"))?;
        task::unpack(disk, config.task_len, &Places::guest().task)
            .map_err(|error| Unprepared { failure: error.fault(), text: error.to_string() })?;
    }
    disks::close_task().map_err(guest_failure("make /var/task read-only"))?;
    disks::limit_tmp(config.tmp.bytes()).map_err(guest_failure("limit /tmp"))
}

/// The guest's name, also where programs look for its address.
fn name(name: &str) -> Result<(), Unprepared> {
    rustix::system::sethostname(name.as_bytes())
        .map_err(|error| guest_failure("set the host name")(error.into()))?;
    let hosts = format!("127.0.0.1 localhost sandbox sandbox.localdomain {name}\n");
    fs::create_dir_all("/etc").map_err(guest_failure("make /etc"))?;
    fs::write("/etc/hosts", hosts).map_err(guest_failure("write /etc/hosts"))
}

/// For `map_err`: a step of the guest's own that failed.
fn guest_failure(step: &'static str) -> impl Fn(std::io::Error) -> Unprepared {
    move |error| Unprepared { failure: InitFailure::Guest, text: format!("{step}: {error}") }
}
