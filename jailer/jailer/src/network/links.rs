//! Links, addresses, routes and neighbours, by rtnetlink (rtnetlink(7)).

use super::netlink::{Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Socket, word};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/neighbour.h, linux/if.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;
const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const AF_INET: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const RTNH_F_ONLINK: u32 = 4;
const NUD_PERMANENT: u16 = 0x80;

/// Where a route leads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// By a neighbour on a link.
    Via { gateway: [u8; 4], link: u32 },
    /// Nowhere.
    Unreachable,
}

/// Links of one namespace.
#[derive(Debug)]
pub(super) struct Links(Socket);

impl Links {
    /// Of the namespace that this process is in.
    pub(super) fn here() -> Result<Self, Errno> {
        Socket::new(None).map(Self)
    }

    /// The number of a link.
    pub(super) fn index(&mut self, name: &str) -> Result<u32, Errno> {
        let body = self.0.get(link(RTM_GETLINK, 0, 0, 0).text(IFLA_IFNAME, name))?;
        word(&body, 4).ok_or(Errno::PROTO)
    }

    /// Brings a link up, with this address of its own if one is given.
    pub(super) fn up(&mut self, index: u32, mac: Option<[u8; 6]>) -> Result<(), Errno> {
        if let Some(mac) = mac {
            self.0.ask(link(RTM_NEWLINK, 0, index, 0).attribute(IFLA_ADDRESS, &mac))?;
        }
        self.0.ask(link(RTM_NEWLINK, 0, index, IFF_UP))
    }

    /// Removes a link. One that is not there is removed already.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), Errno> {
        match self.0.ask(link(RTM_DELLINK, 0, 0, 0).text(IFLA_IFNAME, name)) {
            Err(Errno::NODEV) => Ok(()),
            other => other,
        }
    }

    /// A pair of links: one here, its peer in another namespace.
    pub(super) fn pair(&mut self, name: &str, peer: &str, there: BorrowedFd<'_>) -> Result<(), Errno> {
        let there = there.as_raw_fd().to_ne_bytes();
        let message = link(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0, 0).text(IFLA_IFNAME, name);
        self.0.ask(message.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |it| {
                    it.raw(&[0; 16]).text(IFLA_IFNAME, peer).attribute(IFLA_NET_NS_FD, &there)
                })
            })
        }))
    }

    /// Gives a link an address.
    pub(super) fn address(&mut self, link: u32, address: [u8; 4], prefix: u8) -> Result<(), Errno> {
        // ifaddrmsg: family, prefix length, flags, scope, index.
        let message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
        let message = message.raw(&[AF_INET, prefix, 0, 0]).raw(&link.to_ne_bytes());
        self.0.ask(message.attribute(IFA_LOCAL, &address).attribute(IFA_ADDRESS, &address))
    }

    /// A route; one that is there for the same destination is another's, unless it may be replaced.
    pub(super) fn route(
        &mut self,
        (address, prefix): ([u8; 4], u8),
        way: Way,
        replace: bool,
    ) -> Result<(), Errno> {
        let (kind, flags) = match way {
            Way::Via { .. } => (RTN_UNICAST, RTNH_F_ONLINK),
            Way::Unreachable => (RTN_UNREACHABLE, 0),
        };
        let mode = NLM_F_CREATE | if replace { NLM_F_REPLACE } else { NLM_F_EXCL };
        // rtmsg: family, lengths of destination and source, type of service, table, protocol, scope, type, flags.
        let message = Message::new(RTM_NEWROUTE, mode)
            .raw(&[AF_INET, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, kind])
            .raw(&flags.to_ne_bytes());
        let message = if prefix == 0 { message } else { message.attribute(RTA_DST, &address) };
        self.0.ask(match way {
            Way::Via { gateway, link } => {
                message.attribute(RTA_GATEWAY, &gateway).attribute(RTA_OIF, &link.to_ne_bytes())
            }
            Way::Unreachable => message,
        })
    }

    /// Who has an address on a link, for ever.
    pub(super) fn neighbour(&mut self, link: u32, address: [u8; 4], mac: [u8; 6]) -> Result<(), Errno> {
        // ndmsg: family, padding, index, state, flags, type.
        let message = Message::new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE).raw(&[AF_INET, 0, 0, 0]);
        let message = message.raw(&link.to_ne_bytes()).raw(&NUD_PERMANENT.to_ne_bytes()).raw(&[0, 0]);
        self.0.ask(message.attribute(NDA_DST, &address).attribute(NDA_LLADDR, &mac))
    }

    /// The names of all links that begin so.
    pub(super) fn named(&mut self, begin: &str) -> Result<Vec<String>, Errno> {
        let mut found = Vec::new();
        self.0.dump(link(RTM_GETLINK, 0, 0, 0), |body| {
            let attributes = super::netlink::attributes(body.get(16..).unwrap_or_default());
            for (_, value) in attributes.filter(|(kind, _)| *kind == IFLA_IFNAME) {
                let name = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
                if name.starts_with(begin) {
                    found.push(name);
                }
            }
        })?;
        Ok(found)
    }
}

/// A message about a link. ifinfomsg: family, padding, type, index, flags, which of them.
fn link(kind: u16, flags: u16, index: u32, on: u32) -> Message {
    let message = Message::new(kind, flags).raw(&[0; 4]).raw(&index.to_ne_bytes());
    message.raw(&on.to_ne_bytes()).raw(&on.to_ne_bytes())
}
