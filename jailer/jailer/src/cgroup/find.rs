//! Which hierarchies the host has, from the text of /proc: pure.

use warren_sandbox_plan::facts::{CgroupVersion, Controller};

/// A mounted hierarchy with controllers of use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub(crate) mount: String,
    /// The jailer's own group in it, as a path below the mount: "/" or "/a/b".
    pub(crate) own: String,
    /// What it controls.
    pub(crate) controllers: Vec<Controller>,
}

/// The hierarchies to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) version: CgroupVersion,
    pub(crate) hierarchies: Vec<Hierarchy>,
}

/// Chooses: version 2 where it has every required controller, else version 1. `controllers_at` reads
/// `cgroup.controllers` of a version 2 mount. `None` if neither will do.
pub(crate) fn find(
    mountinfo: &str,
    own_groups: &str,
    controllers_at: impl Fn(&str) -> Option<String>,
) -> Option<Found> {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(parse_mount).collect();
    let two = mounts.iter().filter(|mount| mount.kind == "cgroup2").find_map(|mount| {
        let present = controllers_at(mount.point)?;
        let controllers = wanted(CgroupVersion::V2, present.split_whitespace());
        let own = own_groups.lines().find_map(|line| line.strip_prefix("0::"))?;
        Some(Hierarchy { mount: mount.point.to_owned(), own: below(mount.root, own), controllers })
    });
    let one = || -> Vec<Hierarchy> {
        let mounts = mounts.iter().filter(|mount| mount.kind == "cgroup");
        let mut found: Vec<Hierarchy> = mounts
            .filter_map(|mount| {
                let controllers = wanted(CgroupVersion::V1, mount.options.split(','));
                let first = controllers.first()?.name();
                let own = own_groups.lines().find_map(|line| {
                    let (_, rest) = line.split_once(':')?;
                    let (names, path) = rest.split_once(':')?;
                    names.split(',').any(|name| name == first).then_some(path)
                })?;
                Some(Hierarchy { mount: mount.point.to_owned(), own: below(mount.root, own), controllers })
            })
            .collect();
        found.sort_by(|a, b| a.controllers.cmp(&b.controllers));
        // The same hierarchy mounted twice is used once.
        found.dedup_by(|a, b| a.controllers == b.controllers);
        found
    };
    [(CgroupVersion::V2, two.into_iter().collect()), (CgroupVersion::V1, one())]
        .into_iter()
        .find(|(version, hierarchies)| is_enough(*version, hierarchies))
        .map(|(version, hierarchies)| Found { version, hierarchies })
}

/// Where version 2 is mounted whole, and with which options of its file system.
pub(super) fn unified(mountinfo: &str) -> Option<(&str, &str)> {
    let mut mounts = mountinfo.lines().filter_map(parse_mount);
    let mount = mounts.find(|mount| mount.kind == "cgroup2" && mount.root == "/")?;
    Some((mount.point, mount.options))
}

fn is_enough(version: CgroupVersion, hierarchies: &[Hierarchy]) -> bool {
    Controller::wanted(version)
        .iter()
        .filter(|controller| controller.required())
        .all(|controller| hierarchies.iter().any(|hierarchy| hierarchy.controllers.contains(controller)))
}

fn wanted<'a>(version: CgroupVersion, present: impl Iterator<Item = &'a str>) -> Vec<Controller> {
    let present: Vec<&str> = present.collect();
    let wanted = Controller::wanted(version).iter().copied();
    wanted.filter(|controller| present.contains(&controller.name())).collect()
}

struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

/// One line of mountinfo; proc_pid_mountinfo(5).
fn parse_mount(line: &str) -> Option<Mount<'_>> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, point) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let kind = right.next()?;
    let options = right.nth(1)?;
    Some(Mount { root, point, kind, options })
}

/// A group's path below a mount whose root is itself a group (as in a container).
fn below(root: &str, own: &str) -> String {
    let rest = match own.strip_prefix(root) {
        Some(rest) if root != "/" => rest,
        _ => own,
    };
    if rest.is_empty() { "/".to_owned() } else { rest.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
24 1 0:20 / /sys/fs/cgroup rw - tmpfs tmpfs rw
25 24 0:21 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
26 24 0:22 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
27 24 0:23 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids
28 24 0:24 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
30 24 0:23 / /other/pids rw,relatime shared:9 - cgroup cgroup rw,pids
29 24 0:25 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const V1_OWN: &str = "4:memory:/a/b\n3:pids:/\n2:cpu,cpuacct:/\n1:name=systemd:/x\n0::/\n";

    fn show(found: Option<Found>) -> String {
        found.map_or_else(
            || "none".to_owned(),
            |found| {
                let line = |hierarchy: &Hierarchy| {
                    let names: Vec<_> = hierarchy.controllers.iter().map(|it| it.name()).collect();
                    format!("{} {} {}", hierarchy.mount, hierarchy.own, names.join("+"))
                };
                let lines: Vec<_> = found.hierarchies.iter().map(line).collect();
                format!("{:?}: {}", found.version, lines.join("; "))
            },
        )
    }

    #[test]
    fn table() {
        let v2 = "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let contained = "30 1 0:26 /box /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let three = "cpuset cpu io memory pids\n";
        let cases = [
            (
                V1,
                V1_OWN,
                Some(""),
                "V1: /sys/fs/cgroup/pids / pids; /sys/fs/cgroup/memory /a/b memory; \
                 /sys/fs/cgroup/cpu,cpuacct / cpu+cpuacct",
            ),
            (v2, "0::/user/x\n", Some(three), "V2: /sys/fs/cgroup /user/x pids+memory+cpu+io"),
            (v2, "0::/\n", Some("cpu memory pids"), "V2: /sys/fs/cgroup / pids+memory+cpu"),
            (contained, "0::/box\n", Some(three), "V2: /sys/fs/cgroup / pids+memory+cpu+io"),
            (contained, "0::/box/in\n", Some(three), "V2: /sys/fs/cgroup /in pids+memory+cpu+io"),
            (v2, "0::/\n", Some("cpu memory"), "none"),
            (v2, "0::/\n", None, "none"),
            ("", "", None, "none"),
            ("nonsense - \n - cgroup2 x", "0::", None, "none"),
        ];
        for (mounts, own, controllers, expected) in cases {
            assert_eq!(show(find(mounts, own, |_| controllers.map(str::to_owned))), expected);
        }
    }
}
