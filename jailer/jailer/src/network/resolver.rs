//! Whom this host asks for names.

use std::{fs, net::Ipv4Addr};

/// In this order: the second has the real ones where the first names systemd's own, which listens on the loopback only.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// The first that can be reached from elsewhere than this host's loopback.
pub(super) fn of_this_host() -> Option<Ipv4Addr> {
    FILES.iter().find_map(|file| first(&fs::read_to_string(file).ok()?))
}

fn first(text: &str) -> Option<Ipv4Addr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<Ipv4Addr>().ok()).flatten()
    });
    addresses.into_iter().find(|address| !address.is_loopback() && !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::first;

    #[test]
    fn table() {
        for (text, expect) in [
            ("", None),
            ("# nameserver 1.1.1.1\nnameserver 9.9.9.9\nnameserver 8.8.8.8\n", Some("9.9.9.9")),
            ("nameserver 127.0.0.53\noptions edns0", None),
            ("nameserver ::1\nnameserver\nnameserver x\nnameserver 10.0.0.3", Some("10.0.0.3")),
        ] {
            assert_eq!(first(text).map(|address| address.to_string()).as_deref(), expect, "{text:?}");
        }
    }
}
