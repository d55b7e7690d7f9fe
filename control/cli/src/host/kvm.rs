//! /dev/kvm: who may open it, and what is to be done about it. Pure but for [`Node::read`].
//!
//! Warren itself needs none of this: the jailer, as root, opens the device and hands it to each VMM. It is for the
//! user's own tools, `warren doctor` and the monitor's tests.

use super::accounts::{Account, Accounts};
use std::{os::unix::fs::MetadataExt as _, path::Path};

/// The device.
pub(crate) const PATH: &str = "/dev/kvm";
/// The group that has it on every distribution.
pub(crate) const GROUP: &str = "kvm";
/// Read and write for that group.
pub(crate) const MODE: u32 = 0o660;
/// What the rule says; as systemd's own, for hosts that lack it.
pub(crate) const RULE: &str = "\
# Written by `warren host prepare`; removed by `warren host unprepare`.
KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0660\", OPTIONS+=\"static_node=kvm\"
";

/// Who has the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

impl Node {
    /// As it is; `None` if there is none.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let about = std::fs::metadata(path).ok()?;
        Some(Self { uid: about.uid(), gid: about.gid(), mode: about.mode() & 0o7777 })
    }

    /// Whether this user may read and write it, as far as owner, group and mode say.
    fn opens_for(self, uid: u32, groups: &[u32]) -> bool {
        let bits = |shift: u32| (self.mode >> shift) & 0o6 == 0o6;
        if uid == self.uid {
            bits(6)
        } else if groups.contains(&self.gid) {
            bits(3)
        } else {
            bits(0)
        }
    }
}

/// What the user lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lacking {
    /// The group does not exist.
    pub(crate) group: bool,
    /// The device is not the group's, readable and writable.
    pub(crate) node: bool,
    /// The user is not in it.
    pub(crate) member: bool,
}

/// What is to be done so that the account can open the device: nothing if it can.
pub(crate) fn lacking(node: Node, account: &Account, accounts: &Accounts) -> Lacking {
    if node.opens_for(account.uid, &accounts.groups_of(account)) {
        return Lacking { group: false, node: false, member: false };
    }
    let group = accounts.group(GROUP);
    let gid = group.as_ref().map(|(gid, _)| *gid);
    Lacking {
        group: group.is_none(),
        node: gid != Some(node.gid) || node.mode & MODE != MODE,
        member: gid.is_none_or(|gid| !accounts.groups_of(account).contains(&gid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let passwd = "ada:x:1000:1000:::\nbob:x:1001:107:::\n".to_owned();
        let with = |group: &str| Accounts { passwd: passwd.clone(), group: group.into() };
        let (none, empty, joined) = (with(""), with("kvm:x:107:\n"), with("kvm:x:107:ada\n"));
        let device = |gid, mode| Node { uid: 0, gid, mode };
        for (accounts, user, node, [group, of_group, member]) in [
            (&none, "ada", device(0, 0o600), [true, true, true]),
            (&none, "ada", device(0, 0o666), [false, false, false]),
            (&empty, "ada", device(107, 0o660), [false, false, true]),
            (&empty, "ada", device(0, 0o600), [false, true, true]),
            (&empty, "bob", device(107, 0o660), [false, false, false]),
            (&empty, "bob", device(107, 0o600), [false, true, false]),
            (&joined, "ada", device(107, 0o660), [false, false, false]),
            (&joined, "ada", device(0, 0o660), [false, true, false]),
        ] {
            let account = accounts.find(user).unwrap();
            let wanted = Lacking { group, node: of_group, member };
            assert_eq!(lacking(node, &account, accounts), wanted, "{user} {node:?}");
        }
    }
}
