//! A guest that was brought back from a snapshot becomes one of its own, before anything of its function runs on.
//!
//! ```text
//!  seed ──▶ the kernel's generators ──▶ what is drawn from them: the range of ports
//!  time ──▶ CLOCK_REALTIME            name ──▶ host name, /etc/hosts
//! ```
//! The kernel chooses the local port of a connection by a secret that it draws once, so copies choose the same. The secret
//! cannot be drawn again; where the range of ports begins and ends can, and moves every choice.

use super::{guest_failure as guest, name};
use crate::serve::Unprepared;
use std::fs;
use warren_vmm_protocol::guest::Restored;

/// Between these a range begins, at an even port, and between these it ends, at an odd one, as the kernel has it: 16,384 ports
/// at least.
const FIRST: u16 = 16_384;
const LAST: u16 = 49_151;
const SPREAD: u16 = 16_384;
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Makes it so.
pub(super) fn renew(restored: &Restored) -> Result<(), Unprepared> {
    crate::entropy::renew(restored.seed).map_err(guest("renew the kernel's random numbers"))?;
    crate::serve::time::set(restored.wall_unix_ns);
    name(restored.sandbox.as_str())?;
    let mut drawn = [0; 4];
    rustix::rand::getrandom(&mut drawn, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| guest("draw")(error.into()))?;
    let (from, to) = ports(drawn);
    fs::write(RANGE, format!("{from} {to}\n")).map_err(guest("move the range of ports"))
}

fn ports(drawn: [u8; 4]) -> (u16, u16) {
    let [a, b, c, d] = drawn;
    let step = |bytes| (u16::from_le_bytes(bytes) % SPREAD) & !1;
    (FIRST.saturating_add(step([a, b])), LAST.saturating_add(step([c, d])))
}

#[cfg(test)]
mod tests {
    use super::ports;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn there_are_ports_enough(drawn: [u8; 4]) {
            let (from, to) = ports(drawn);
            prop_assert!(from >= 16_384 && from % 2 == 0 && to % 2 == 1 && to - from >= 16_384, "{from} {to}");
        }
    }

    #[test]
    fn ranges_differ() {
        assert_eq!(ports([0; 4]), (16_384, 49_151));
        assert_eq!(ports([0xFF; 4]), (32_766, 65_533));
        assert_ne!(ports([2, 0, 0, 0]), ports([4, 0, 0, 0]));
    }
}
