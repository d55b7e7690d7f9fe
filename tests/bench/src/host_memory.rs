//! What the machine and processes say of memory: `/proc/meminfo`, `smaps_rollup`, `smaps`, a cgroup's charge.

use anyhow::{Context as _, Result};
use std::{
    collections::BTreeMap,
    fs,
    ops::{AddAssign, Sub},
    path::PathBuf,
};

/// Fields by name, KiB.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(BTreeMap<String, i64>);

impl Fields {
    /// `/proc/meminfo`.
    pub(crate) fn of_machine() -> Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/meminfo")?))
    }

    /// `smaps_rollup` and `status` of a process; `None` if it is gone.
    pub(crate) fn of_process(pid: i32) -> Option<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        Some(Self::parse(&(read("smaps_rollup")? + &read("status")?)))
    }

    /// The same of several, added up.
    pub(crate) fn of_processes(pids: impl Iterator<Item = i32>) -> Option<Self> {
        let mut sum = Self::default();
        for pid in pids {
            sum += &Self::of_process(pid)?;
        }
        Some(sum)
    }

    /// Lines of `name: number kB`; others are something else.
    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (name, rest) = line.split_once(':')?;
            let kib = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some((name.to_owned(), kib))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// One of them; 0 where there is none.
    pub(crate) fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

impl AddAssign<&Self> for Fields {
    fn add_assign(&mut self, other: &Self) {
        for (name, kib) in &other.0 {
            *self.0.entry(name.clone()).or_default() += kib;
        }
    }
}

impl Sub<&Self> for Fields {
    type Output = Self;

    fn sub(mut self, other: &Self) -> Self {
        for (name, kib) in &other.0 {
            *self.0.entry(name.clone()).or_default() -= kib;
        }
        self
    }
}

/// How many mappings a process has.
pub(crate) fn mappings(pid: i32) -> Result<usize> {
    Ok(fs::read_to_string(format!("/proc/{pid}/maps"))?.lines().count())
}

/// Private pages of a process by what is mapped: name, or permissions of what has none; KiB, most first.
pub(crate) fn private_by_mapping(pid: i32) -> Result<Vec<(String, i64)>> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut of, mut sums) = (String::new(), BTreeMap::<String, i64>::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some(name) = first.strip_suffix(':') {
            if matches!(name, "Private_Dirty" | "Private_Clean") {
                let kib: i64 = words.next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
                *sums.entry(of.clone()).or_default() += kib;
            }
        } else {
            let permissions = words.next().unwrap_or_default().to_owned();
            of = words
                .nth(3)
                .map_or(format!("anonymous {permissions}"), |name| format!("{name} {permissions}"));
        }
    }
    let mut sums: Vec<_> = sums.into_iter().filter(|(_, kib)| *kib > 0).collect();
    sums.sort_by_key(|(_, kib)| std::cmp::Reverse(*kib));
    Ok(sums)
}

/// The directory of a process's memory cgroup, version 1 or 2.
pub(crate) fn memory_cgroup(pid: i32) -> Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let line = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let v1 = controllers.split(',').any(|one| one == "memory");
        let root = if v1 { "/sys/fs/cgroup/memory" } else { "/sys/fs/cgroup" };
        (v1 || number == "0").then(|| (v1, PathBuf::from(format!("{root}{path}"))))
    };
    let mut found: Vec<_> = text.lines().filter_map(line).collect();
    found.sort_by_key(|(v1, _)| !v1);
    found.into_iter().map(|(_, path)| path).find(|path| path.exists()).context("no memory cgroup")
}

/// What a memory cgroup is charged, KiB: pages of processes, and what the kernel keeps for them.
pub(crate) fn charged(group: &std::path::Path) -> Result<i64> {
    let read = |name: &str| fs::read_to_string(group.join(name));
    let text = read("memory.current").or_else(|_| read("memory.usage_in_bytes"))?;
    Ok(text.trim().parse::<i64>()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_added_and_taken_away() {
        let a = Fields::parse(
            "MemFree:  12 kB\nHugePages_Total: 3\n5581-5582 ---p 00000000 00:00 0 [rollup]\nPss:4 kB",
        );
        assert_eq!((a.get("MemFree"), a.get("Pss"), a.get("HugePages_Total")), (12, 4, 0));
        let mut sum = a.clone();
        sum += &a;
        assert_eq!(sum.get("MemFree"), 24);
        assert_eq!((sum - &a).get("MemFree"), 12);
    }

    #[test]
    fn a_living_process_says_what_it_has() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(Fields::of_process(own).unwrap().get("Pss") > 0);
        assert!(mappings(own).unwrap() > 5);
        let all: i64 = private_by_mapping(own).unwrap().iter().map(|(_, kib)| kib).sum();
        assert!(all > 0);
        assert!(Fields::of_process(i32::MAX).is_none());
    }
}
