//! What there is in the kernel: remembered connections, and the whole as `warren-jailer network` shows it.

use super::{
    Names, Options, find,
    links::Links,
    netlink::{Message, Socket},
    nft::Tables,
    own_namespace,
    rules::ROUTER,
    within,
};
use rustix::{io::Errno, net::netlink::NETFILTER};
use serde_json::{Value, json};
use std::os::fd::AsFd as _;
use warren_sandbox_plan::network::TAP;

// linux/netfilter/nfnetlink_conntrack.h
const DELETE: u16 = 1 << 8 | 2;
const AF_INET: u8 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
/// Of a tuple only its source is compared.
const FILTER_SOURCE: u32 = 1;

/// The connections that a namespace remembers.
#[derive(Debug)]
pub(super) struct Remembered(Socket);

impl Remembered {
    /// Of the namespace that this process is in.
    pub(super) fn here() -> Result<Self, Errno> {
        Socket::new(Some(NETFILTER)).map(Self)
    }

    /// (Only with a version other than 0 is the family of a message looked at.)
    ///
    /// Forgets those that this address began (since Linux 5.8; before, all of them are let be).
    pub(super) fn forget(&mut self, address: [u8; 4]) -> Result<(), Errno> {
        let message = Message::new(DELETE, 0).raw(&[AF_INET, 1, 0, 0]);
        let message = message
            .nest(CTA_TUPLE_ORIG, |it| it.nest(CTA_TUPLE_IP, |it| it.attribute(CTA_IP_V4_SRC, &address)));
        self.0.ask(
            message.nest(CTA_FILTER, |it| it.attribute(CTA_FILTER_ORIG_FLAGS, &FILTER_SOURCE.to_ne_bytes())),
        )
    }
}

/// What there is of a jailer's network on this host.
pub(crate) fn status(options: &Options, number: u32, living: &[i32]) -> anyhow::Result<Value> {
    let names = Names::of(number);
    let link = Links::here()?.index(&names.link).is_ok();
    let rules = Tables::here()?.count_rules(&names.table).unwrap_or(0);
    let mut status = json!({
        "pool": options.pool_of(number).to_string(),
        "link": names.link, "has_link": link,
        "table": names.table, "rules": rules,
        "router": null,
    });
    if let Some(router) = find::namespace_of(living) {
        let host = own_namespace()?;
        let (rules, taps) = within(router.as_fd(), host.as_fd(), || -> Result<_, Errno> {
            Ok((Tables::here()?.count_rules(ROUTER)?, Links::here()?.named(TAP)?))
        })?;
        status["router"] = json!({ "rules": rules, "taps": taps });
    }
    Ok(status)
}
