//! The network of this host's sandboxes: prepared once, before the jailer confines itself; a slot's part of it is a tap.
//!
//! ```text
//!  jailer starts ─▶ router's namespace: new, or the one that a living VMM's tap is in ─▶ link ─▶ rules ─▶ prepared
//!        └─ the host cannot ─▶ said, and refused to who asks for a network                                   │
//!                                                                                                            ▼
//!  Spawn with a network ─▶ tap of the slot, its route, its neighbour ─▶ to the agent, beside the pidfd ─▶ the VMM
//!                                                                                                            │ ends
//!  slot given back ◀─ what the host remembers of its address forgotten ◀─ the tap is gone by itself  ◀───────┘
//! ```
//! - **Taps are in a namespace of their own**, the router's, in which there is nothing else: what a guest sends is parsed,
//!   judged and changed there. One link leads from it to the host.
//! - **Nothing is written down.** A slot's number is its address and its tap's name. The namespace lives as long as somebody
//!   holds it, which each VMM does by its tap: a new jailer finds it there, or there is none and nothing to find.
//! - **The number of rules does not grow**: one map has the address of each slot, whether it is used or not.
//! - **No program is run and no library called**: both kernel interfaces are messages of a few dozen bytes ([`netlink`]).

mod find;
mod links;
mod netlink;
mod nft;
mod resolver;
mod rules;
mod state;

pub(crate) use rules::Network as Range;
pub(crate) use state::status;

use crate::{programs::open_anew, sys};
use links::{Links, Way};
use nft::Tables;
use rules::{ROUTER, UPLINK, tap_name};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};
use state::Remembered;
use std::{
    fs,
    io::Write as _,
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};
use warren_sandbox_plan::network::{GATEWAY, GUEST, GUEST_MAC, MOST_SLOTS, Pool, TAP_MAC};

/// What `serve` is told of it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Whether sandboxes can have a network: where the host can, or none.
    #[arg(long = "network", value_enum, default_value = "none")]
    wanted: Wanted,
    /// The addresses that the host knows sandboxes by, 65,536 of them [default: one of 100.64.0.0/10].
    #[arg(long = "network-pool", value_name = "A.B.0.0/16")]
    pool: Option<Pool>,
    /// Whom sandboxes' questions for names go to [default: the host's own resolver].
    #[arg(long = "network-resolver", value_name = "ADDRESS")]
    resolver: Option<Ipv4Addr>,
    /// A private network that sandboxes may reach; may be repeated. Link-local addresses stay closed.
    #[arg(long = "network-open", value_name = "NETWORK")]
    open: Vec<Range>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Wanted {
    Auto,
    None,
}

/// Why there is no network, or no part of it for a sandbox.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub(crate) struct NetworkError {
    what: String,
    #[source]
    pub(crate) source: Errno,
}

fn step(what: impl Into<String>) -> impl FnOnce(Errno) -> NetworkError {
    let what = what.into();
    move |source| NetworkError { what, source }
}

/// A prepared network.
#[derive(Debug)]
pub(crate) struct Network {
    names: Names,
    pool: Pool,
    /// The router's namespace, and its links.
    router: OwnedFd,
    inside: Links,
    /// What there is of it in the host's.
    host_links: Links,
    host_tables: Tables,
    remembered: Remembered,
    /// `/dev/net/tun`, by which taps are made.
    tun: OwnedFd,
    /// The host's switch for forwarding, if a jailer has set it.
    switch: Option<fs::File>,
}

/// What this jailer's part of the host's namespace is called.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Names {
    link: String,
    table: String,
}

impl Names {
    /// By the number that tells this jailer from others.
    fn of(number: u32) -> Self {
        Self { link: format!("warren{number:08x}"), table: format!("warren-{number:08x}") }
    }
}

impl Options {
    /// The pool of the jailer with this number.
    fn pool_of(&self, number: u32) -> Pool {
        self.pool.unwrap_or_else(|| Pool::chosen_by(number))
    }
}

/// Prepares it, for the jailer with this number, or says why sandboxes have none. `living` are the processes in jails that an
/// earlier jailer left. Must be called in the host's namespaces.
pub(crate) fn prepare(options: &Options, number: u32, slots: u32, living: &[i32]) -> Result<Network, String> {
    if options.wanted == Wanted::None {
        return Err("its operator wants none (--network none)".to_owned());
    }
    if slots > MOST_SLOTS {
        return Err(format!("{slots} slots are more than a pool has addresses for ({MOST_SLOTS})"));
    }
    Network::prepare(options, number, slots, living).map_err(|error| format!("{error}: {}", error.source))
}

impl Network {
    fn prepare(options: &Options, number: u32, slots: u32, living: &[i32]) -> Result<Self, NetworkError> {
        let names = Names::of(number);
        let pool = options.pool_of(number);
        let tun = openat(CWD, "/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(step("open /dev/net/tun (load the kernel's module tun)"))?;
        let host = own_namespace().map_err(step("open the host's network namespace"))?;
        let mut host_links = Links::here().map_err(step("talk to the kernel's router (rtnetlink)"))?;
        let host_tables = Tables::here().map_err(step("talk to the kernel's packet filter (nfnetlink)"))?;
        let remembered =
            Remembered::here().map_err(step("talk to the kernel's connection tracker (ctnetlink)"))?;
        // What a jailer that was killed left; a namespace of nobody's takes its links along by and by.
        host_links.remove(&names.link).map_err(step(format!("remove the link {}", names.link)))?;

        let found = find::namespace_of(living);
        let is_new = found.is_none();
        let router = found.map_or_else(new_namespace, Ok).map_err(step("make a network namespace"))?;
        host_links.pair(&names.link, UPLINK, router.as_fd()).map_err(step("make a pair of links (veth)"))?;
        let resolver = options.resolver.or_else(resolver::of_this_host);
        let inside =
            within(router.as_fd(), host.as_fd(), || set_up_router(is_new, pool, slots, resolver, options))?;

        let network =
            Self { names, pool, router, inside, host_links, host_tables, remembered, tun, switch: None };
        network.set_up_host(resolver)
    }

    /// The host's side. What fails takes away what was made.
    fn set_up_host(mut self, resolver: Option<Ipv4Addr>) -> Result<Self, NetworkError> {
        let made = self.try_host(resolver);
        if let Err(error) = made {
            self.remove();
            return Err(error);
        }
        Ok(self)
    }

    fn try_host(&mut self, resolver: Option<Ipv4Addr>) -> Result<(), NetworkError> {
        let Names { link, table } = &self.names;
        // The table itself says, for as long as it is there, that an earlier jailer switched forwarding on.
        let switched = !forwards().map_err(step("look whether this host forwards"))?
            || self.host_tables.has_mark(table, rules::SWITCHED);
        let rules = rules::host((table, link), self.pool, resolver, switched);
        self.host_tables
            .replace(&rules)
            .map_err(step(format!("set the rules of the table {table} (nftables)")))?;
        if switched {
            fs::write(SWITCH, "1").map_err(|error| errno(&error)).map_err(step("switch forwarding on"))?;
            let file = fs::File::options().write(true).open(SWITCH).map_err(|error| errno(&error));
            self.switch = Some(file.map_err(step("open the switch for forwarding"))?);
        }
        let links = &mut self.host_links;
        let index = links.index(link).map_err(step("find the link to the router"))?;
        links
            .address(index, self.pool.host(), 30)
            .map_err(step("give the link to the router its address"))?;
        links.up(index, None).map_err(step("bring the link to the router up"))?;
        let way = Way::Via { gateway: self.pool.router(), link: index };
        let pool = self.pool;
        links
            .route((pool.first(), 16), way, false)
            .map_err(step(format!("make a route to {pool} (is it in use? --network-pool names another)")))?;
        Ok(())
    }

    /// The tap of a slot, ready for a VMM. It is gone with its last descriptor.
    pub(crate) fn attach(&mut self, slot: u32, processes: BorrowedFd<'_>) -> Result<OwnedFd, NetworkError> {
        let name = tap_name(slot);
        let address = self.pool.of_slot(slot).ok_or_else(|| step("find an address")(Errno::ADDRNOTAVAIL))?;
        let tun = self.tun.as_fd();
        let open = || open_anew(processes, tun, OFlags::RDWR | OFlags::NONBLOCK);
        let empty = namespace_of_self(processes).map_err(step("open the jailer's own network namespace"))?;
        let file = within(self.router.as_fd(), empty.as_fd(), open).map_err(step("open /dev/net/tun"))?;
        match sys::make_tap(file.as_fd(), &name) {
            // Somebody still holds the tap of the one before: it loses it.
            Err(Errno::BUSY) => {
                let _ = self.inside.remove(&name);
                sys::make_tap(file.as_fd(), &name)
            }
            other => other,
        }
        .map_err(step(format!("make the tap {name}")))?;
        let links = &mut self.inside;
        let index = links.index(&name).map_err(step(format!("find the tap {name}")))?;
        links.up(index, Some(TAP_MAC)).map_err(step(format!("bring the tap {name} up")))?;
        links.neighbour(index, GUEST, GUEST_MAC).map_err(step("set the guest's link address"))?;
        let way = Way::Via { gateway: GUEST, link: index };
        links.route((address, 32), way, true).map_err(step("set the guest's route"))?;
        Ok(file)
    }

    /// Forgets what the host remembers of a slot's connections: the next one there has its own.
    pub(crate) fn forget(&mut self, slot: u32) {
        if let Some(address) = self.pool.of_slot(slot) {
            // Fails where there is nothing to forget as well.
            let _ = self.remembered.forget(address);
        }
    }

    /// Takes everything away.
    pub(crate) fn remove(&mut self) {
        let _ = self.host_links.remove(&self.names.link);
        let _ = self.host_tables.remove(&self.names.table);
        if let Some(mut switch) = self.switch.take() {
            let _ = switch.write_all(b"0");
        }
    }
}

/// What is in the router's namespace, made anew but for the taps.
fn set_up_router(
    is_new: bool,
    pool: Pool,
    slots: u32,
    resolver: Option<Ipv4Addr>,
    options: &Options,
) -> Result<Links, NetworkError> {
    let mut links = Links::here().map_err(step("talk to the router's kernel interface"))?;
    if is_new {
        settings().map_err(step("set up the router's namespace"))?;
    }
    // Before anything can come in.
    let rules = rules::router(pool, slots, resolver.is_some(), &options.open);
    let mut tables = Tables::here().map_err(step("talk to the kernel's packet filter (nfnetlink)"))?;
    tables
        .replace(&rules)
        .map_err(step(format!("set the rules of the router's table {ROUTER} (nftables)")))?;
    let loopback = links.index("lo").map_err(step("find the router's loopback"))?;
    links.up(loopback, None).map_err(step("bring the router's loopback up"))?;
    links.address(loopback, GATEWAY, 32).map_err(step("give the router the gateway's address"))?;
    let uplink = links.index(UPLINK).map_err(step("find the router's link"))?;
    links.address(uplink, pool.router(), 30).map_err(step("give the router's link its address"))?;
    links.up(uplink, None).map_err(step("bring the router's link up"))?;
    let way = Way::Via { gateway: pool.host(), link: uplink };
    links.route(([0; 4], 0), way, true).map_err(step("make the router's way out"))?;
    // Addresses of slots without a tap are nobody's: without this they would go back and forth.
    links.route((pool.first(), 16), Way::Unreachable, true).map_err(step("close the addresses of nobody"))?;
    Ok(links)
}

/// Of the namespace this process is in: it forwards, has no IPv6, and answers for an address that is not on the link.
fn settings() -> Result<(), Errno> {
    for (file, value) in [
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv6/conf/all/disable_ipv6", "1"),
        ("ipv6/conf/default/disable_ipv6", "1"),
        ("ipv4/ip_forward", "1"),
    ] {
        match fs::write(Path::new("/proc/sys/net").join(file), value) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.starts_with("ipv6") => {}
            other => other.map_err(|error| errno(&error))?,
        }
    }
    Ok(())
}

/// Whether packets that come by one link may leave by another.
const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";

fn forwards() -> Result<bool, Errno> {
    fs::read_to_string(SWITCH).map(|text| text.trim() != "0").map_err(|error| errno(&error))
}

/// Does something in one namespace, and comes back to another. This process has one thread.
fn within<T>(there: BorrowedFd<'_>, back: BorrowedFd<'_>, act: impl FnOnce() -> T) -> T {
    let entered = move_into_link_name_space(there, Some(LinkNameSpaceType::Network));
    let result = act();
    if entered.is_ok() && move_into_link_name_space(back, Some(LinkNameSpaceType::Network)).is_err() {
        // It would serve on from where guests' packets are: the next jailer takes over from here.
        std::process::abort();
    }
    result
}

fn new_namespace() -> Result<OwnedFd, Errno> {
    let host = own_namespace()?;
    sys::unshare(UnshareFlags::NEWNET)?;
    let fresh = own_namespace();
    if move_into_link_name_space(host.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
        std::process::abort();
    }
    fresh
}

fn own_namespace() -> Result<OwnedFd, Errno> {
    openat(CWD, "/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn namespace_of_self(processes: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    openat(processes, "self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
