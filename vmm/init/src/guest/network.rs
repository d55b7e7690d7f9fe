//! Links, addresses and the way out, by rtnetlink (rtnetlink(7)): messages are bytes, so there is nothing to call but a socket.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use std::io::{Error as IoError, ErrorKind, Result as IoResult};
use warren_vmm_protocol::guest::Network;

// linux/rtnetlink.h, linux/netlink.h, linux/if_addr.h, linux/if.h
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const AF_INET: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;
const HEADER: usize = 16;

/// A link.
#[derive(Clone, Copy)]
pub(super) enum Link {
    /// `lo`, which the kernel gives 127.0.0.1 by itself.
    Loopback,
    /// The one network device.
    Ethernet,
}

impl Link {
    fn index(self) -> IoResult<u32> {
        let name = match self {
            Self::Loopback => return Ok(1),
            Self::Ethernet => "eth0",
        };
        let text = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
        text.trim().parse().map_err(|_| ErrorKind::InvalidData.into())
    }

    /// Brings it up.
    pub(super) fn up(self) -> IoResult<()> {
        let mut message = Message::new(RTM_NEWLINK, 0);
        // ifinfomsg: family, pad, type, index, flags, change.
        message.bytes(&[0, 0, 0, 0]).number(self.index()?).number(IFF_UP).number(IFF_UP);
        message.send()
    }
}

/// Gives the network device its address and the way out.
pub(super) fn configure(network: &Network) -> IoResult<()> {
    let index = Link::Ethernet.index()?;
    Link::Ethernet.up()?;
    let mut address = Message::new(RTM_NEWADDR, NLM_F_CREATE);
    // ifaddrmsg: family, prefix length, flags, scope, index.
    address.bytes(&[AF_INET, network.prefix, 0, RT_SCOPE_UNIVERSE]).number(index);
    address.attribute(IFA_LOCAL, network.address).attribute(IFA_ADDRESS, network.address);
    address.send()?;
    let mut route = Message::new(RTM_NEWROUTE, NLM_F_CREATE);
    // rtmsg: family, lengths of destination and source, type of service, table, protocol, scope, type, flags.
    route.bytes(&[AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST]).number(0);
    route.attribute(RTA_GATEWAY, network.gateway).attribute(RTA_OIF, index.to_ne_bytes());
    route.send()
}

/// A message that is being made.
pub(super) struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut message = Self(Vec::new());
        let flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        // nlmsghdr: length (set when sent), type, flags, sequence, port.
        message.number(0).bytes(&kind.to_ne_bytes()).bytes(&flags.to_ne_bytes()).number(1).number(0);
        message
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn number(&mut self, number: u32) -> &mut Self {
        self.bytes(&number.to_ne_bytes())
    }

    /// Four bytes of a kind: every attribute here is one.
    fn attribute(&mut self, kind: u16, value: [u8; 4]) -> &mut Self {
        self.bytes(&8_u16.to_ne_bytes()).bytes(&kind.to_ne_bytes()).bytes(&value)
    }

    /// Sends it, and waits for the kernel's word.
    fn send(&mut self) -> IoResult<()> {
        let len = u32::try_from(self.0.len()).map_err(IoError::other)?;
        if let Some(head) = self.0.first_chunk_mut::<4>() {
            *head = len.to_ne_bytes();
        }
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        sendto(&socket, &self.0, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [0; 512];
        let (count, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
        verdict(answer.get(..count).unwrap_or_default())
    }
}

/// What an acknowledgement says: 0, or a negative errno behind its header.
fn verdict(answer: &[u8]) -> IoResult<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let error =
        answer.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, error) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(IoError::from_raw_os_error(error.saturating_neg())),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}
