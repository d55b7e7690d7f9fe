//! Users and groups: the text of passwd and group files, read and changed. Pure but for [`Accounts::read`].

use std::path::Path;

/// Both files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub(crate) passwd: String,
    pub(crate) group: String,
}

/// One account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Accounts {
    /// As they are; a file that is not there is empty.
    pub(crate) fn read(passwd: &Path, group: &Path) -> Self {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self { passwd: text(passwd), group: text(group) }
    }

    /// An account by name or number.
    pub(crate) fn find(&self, user: &str) -> Option<Account> {
        let account = |line: &str| {
            let [name, _, uid, gid, ..] = line.split(':').collect::<Vec<_>>()[..] else { return None };
            Some(Account { name: name.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()? })
        };
        let all = || self.passwd.lines().filter_map(account);
        all().find(|found| found.name == user).or_else(|| all().find(|found| found.uid.to_string() == user))
    }

    /// A group's number and members.
    pub(crate) fn group(&self, name: &str) -> Option<(u32, Vec<&str>)> {
        self.group.lines().find_map(|line| {
            let [found, _, gid, members] = line.split(':').collect::<Vec<_>>()[..] else { return None };
            (found == name)
                .then_some((gid.parse().ok()?, members.split(',').filter(|one| !one.is_empty()).collect()))
        })
    }

    /// Every group of an account.
    pub(crate) fn groups_of(&self, account: &Account) -> Vec<u32> {
        let names = self.group.lines().filter_map(|line| line.split(':').next());
        let member = names.filter_map(|name| {
            let (gid, members) = self.group(name)?;
            members.contains(&account.name.as_str()).then_some(gid)
        });
        std::iter::once(account.gid).chain(member).collect()
    }

    /// Whether a range of uids has no account in it.
    pub(crate) fn is_free(&self, from: u32, count: u32) -> bool {
        let range = from..from.saturating_add(count);
        let uids = self.passwd.lines().filter_map(|line| line.split(':').nth(2)?.parse::<u32>().ok());
        uids.into_iter().all(|uid| !range.contains(&uid))
    }

    /// The group file with one more group, with a number of those kept for the system.
    pub(crate) fn with_group(&self, name: &str) -> String {
        let taken: Vec<u32> =
            self.group.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect();
        let gid = (100..1000).rev().find(|gid| !taken.contains(gid)).unwrap_or(999);
        let gap = if self.group.is_empty() || self.group.ends_with('\n') { "" } else { "\n" };
        format!("{}{gap}{name}:x:{gid}:\n", self.group)
    }

    /// The group file without a group.
    pub(crate) fn without_group(&self, name: &str) -> String {
        let rest = self.group.lines().filter(|line| line.split(':').next() != Some(name));
        rest.flat_map(|line| [line, "\n"]).collect()
    }

    /// The group file with a member more or less.
    pub(crate) fn with_member(&self, group: &str, user: &str, member: bool) -> String {
        let change = |line: &str| {
            let Some((head, members)) =
                line.rsplit_once(':').filter(|_| line.split(':').next() == Some(group))
            else {
                return format!("{line}\n");
            };
            let mut names: Vec<&str> =
                members.split(',').filter(|one| !one.is_empty() && *one != user).collect();
            names.extend(member.then_some(user));
            format!("{head}:{}\n", names.join(","))
        };
        self.group.lines().map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accounts(group: &str) -> Accounts {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nbroken\nada:x:1000:1000::/home/ada:/bin/sh\n1000:x:1:1:::\n";
        Accounts { passwd: passwd.into(), group: group.into() }
    }

    #[test]
    fn names_come_before_numbers() {
        let all = accounts("");
        let find = |user| all.find(user).map(|account| account.uid);
        assert_eq!(
            [find("ada"), find("1000"), find("0"), find("eve"), find("7")],
            [Some(1000), Some(1), Some(0), None, None]
        );
        assert!(all.is_free(80_000, 10) && !all.is_free(990, 11) && all.is_free(990, 10));
    }

    #[test]
    fn groups_and_members() {
        let all = accounts("adm:x:4:ada\nkvm:x:107:eve,ada\nlast:x:9:");
        let ada = all.find("ada").unwrap();
        assert_eq!(all.groups_of(&ada), [1000, 4, 107]);
        assert_eq!(all.with_member("kvm", "bob", true), "adm:x:4:ada\nkvm:x:107:eve,ada,bob\nlast:x:9:\n");
        assert_eq!(all.with_member("kvm", "ada", false), "adm:x:4:ada\nkvm:x:107:eve\nlast:x:9:\n");
        assert!(all.with_group("new").ends_with("last:x:9:\nnew:x:999:\n"));
        assert_eq!(all.without_group("kvm"), "adm:x:4:ada\nlast:x:9:\n");
    }

    proptest! {
        /// What is added can be taken away again, and nothing else changes.
        #[test]
        fn there_and_back(lines in proptest::collection::vec("[a-jl-z]{1,5}:x:[0-9]{1,4}:([a-z]{1,3}(,[a-z]{1,3})?)?", 0..6)) {
            let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
            let with = |group: String| Accounts { group, ..accounts("") };
            let start = with(text.clone());
            let made = with(start.with_group("kvm"));
            let joined = with(made.with_member("kvm", "ada", true));
            prop_assert_eq!(joined.group("kvm").map(|(_, members)| members), Some(vec!["ada"]));
            prop_assert_eq!(&joined.with_member("kvm", "ada", true), &joined.group);
            prop_assert_eq!(&joined.with_member("kvm", "ada", false), &made.group);
            prop_assert_eq!(made.without_group("kvm"), text);
        }
    }
}
