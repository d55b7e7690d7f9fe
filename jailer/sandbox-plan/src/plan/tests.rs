//! Plans as their text: what is printed is what is applied, so the text is what is reviewed.

use super::*;
use crate::{
    facts::{CgroupFacts, CgroupParent, Controller},
    request::{CompileOptions, LinuxMachine, PAGER_NAME, PagerOptions, Spawn},
};

fn facts(version: CgroupVersion, user_namespace: Availability) -> HostFacts {
    let parent = |path: &str, controllers: &[Controller]| CgroupParent {
        path: path.to_string(),
        controllers: controllers.to_vec(),
        swap: true,
    };
    let parents = match version {
        CgroupVersion::V1 => vec![
            parent("/cg/pids/warren", &[Controller::Pids]),
            parent("/cg/memory/warren", &[Controller::Memory]),
            parent("/cg/cpu/warren", &[Controller::Cpu, Controller::Cpuacct]),
            parent("/cg/freezer/warren", &[Controller::Freezer]),
        ],
        CgroupVersion::V2 => {
            let all = [Controller::Pids, Controller::Memory, Controller::Cpu, Controller::Io];
            vec![parent("/cg/warren", &all)]
        }
    };
    let cgroups = CgroupFacts { version, parents };
    HostFacts { cgroups, user_namespace, kvm: Availability::Yes, last_capability: 40, page_bytes: 4096 }
}

const LIMITS: Limits =
    Limits { memory_bytes: 100_000_000, cpu_millis: 1500, cpu_hard: false, pids: 24, cpu_seconds: 0 };

fn plan(facts: &HostFacts, program: Program, limits: &Limits) -> Plan {
    Plan::new(facts, 12, 70_012, &SandboxName::new("thumb-1").unwrap(), program, limits)
}

#[test]
fn a_vmm_under_version_1() {
    let text = plan(&facts(CgroupVersion::V1, Availability::Yes), Program::Vmm, &LIMITS).to_string();
    let expected = "\
jail of warren-vmm as `thumb-1`, slot 12, uid 70012
part one: warren-jailer, before exec
   1  cgroup            v1, one directory a hierarchy:
        /cg/pids/warren/0012
        /cg/memory/warren/0012
        /cg/cpu/warren/0012
        /cg/freezer/warren/0012
   2  clone             new mount, pid, ipc, uts, user; net: the empty one the jailer lives in, shared
   3  map-user          uid 70012 -> 70012, gid 70012 -> 70012; no other id exists
   4  attach            pid into cgroup.procs of every directory, then go
  -- from here on in the child --
   5  session           setsid, default signals, none blocked, umask 077, personality 0, no parent-death signal
   6  cgroup-namespace  unshare(CLONE_NEWCGROUP)
   7  hostname          sethostname `warren`, setdomainname ``
   8  root              own copy of the jailer's pivot_root: empty tmpfs, ro nosuid nodev noexec; propagation private; chdir /
   9  bounding-set      drop capabilities 0..=40; securebits NOROOT, NO_CAP_AMBIENT_RAISE, all locked
  -- the slot is ready, and waits for a request; the jailer --
  10  limits            the jail's name in trusted.warren.name, then, read back:
        /cg/pids/warren/0012 pids.max=\"24\"
        /cg/memory/warren/0012 memory.limit_in_bytes=\"100003840\" memory.memsw.limit_in_bytes=\"100003840\"
        /cg/cpu/warren/0012 cpu.shares=\"1536\"
  -- from here on in the child --
  11  rlimits           CORE=0 NOFILE=64 FSIZE=0 NPROC=24 MEMLOCK=0 MSGQUEUE=0 SIGPENDING=64 RTPRIO=0 NICE=0 LOCKS=0
  12  identity          setgroups [], setresgid 70012, setresuid 70012
  13  capabilities      ambient, effective, permitted, inheritable = 0
  14  no-new-privs      prctl(PR_SET_NO_NEW_PRIVS, 1)
  15  not-dumpable      prctl(PR_SET_DUMPABLE, 0); the program file is execute-only
  16  descriptors       0 = /dev/null, 1 = log (request's 1), 2 = log (request's 1), 3 = listening socket (request's 0), 4 = /dev/kvm, 5 = guest image, close_range on every other
  17  exec              execveat(program, AT_EMPTY_PATH), empty environment, argv warren-vmm run
";
    assert_eq!(text, expected);
}

#[test]
fn a_compilation_under_version_2_without_user_namespaces() {
    let why = Availability::No("clone3(CLONE_NEWUSER): Operation not permitted".to_string());
    let options = CompileOptions { purpose: CompilePurpose::Policy, isa: 7 };
    let limits = Limits { cpu_hard: true, cpu_seconds: 30, ..LIMITS };
    let text = plan(&facts(CgroupVersion::V2, why), Program::Compile(options), &limits).to_string();
    let expected = "\
jail of warren-compile as `thumb-1`, slot 12, uid 70012
part one: warren-jailer, before exec
   1  cgroup            v2, one directory:
        /cg/warren/0012
   2  clone             new mount, pid, ipc, uts (no user namespace: clone3(CLONE_NEWUSER): Operation not permitted); into its cgroup; net: the empty one the jailer lives in, shared
   3  attach            done by CLONE_INTO_CGROUP
  -- from here on in the child --
   4  session           setsid, default signals, none blocked, umask 077, personality 0, no parent-death signal
   5  cgroup-namespace  unshare(CLONE_NEWCGROUP)
   6  hostname          sethostname `warren`, setdomainname ``
   7  root              own copy of the jailer's pivot_root: empty tmpfs, ro nosuid nodev noexec; propagation private; chdir /
   8  bounding-set      drop capabilities 0..=40; securebits NOROOT, NO_CAP_AMBIENT_RAISE, all locked
  -- the slot is ready, and waits for a request; the jailer --
   9  limits            the jail's name in trusted.warren.name, then, read back:
        /cg/warren/0012 pids.max=\"24\" memory.max=\"100003840\" memory.swap.max=\"0\" memory.oom.group=\"1\" cpu.weight=\"1500\" cpu.max=\"150000 100000\"
  -- from here on in the child --
  10  rlimits           CORE=0 NOFILE=16 FSIZE=536870912 AS=4394967296 NPROC=24 MEMLOCK=0 MSGQUEUE=0 SIGPENDING=64 RTPRIO=0 NICE=0 LOCKS=0 CPU=30
  11  identity          setgroups [], setresgid 70012, setresuid 70012
  12  capabilities      ambient, effective, permitted, inheritable = 0
  13  no-new-privs      prctl(PR_SET_NO_NEW_PRIVS, 1)
  14  not-dumpable      prctl(PR_SET_DUMPABLE, 0); the program file is execute-only
  15  descriptors       0 = /dev/null, 1 = log (request's 2), 2 = log (request's 2), 3 = sealed memfd (request's 0), 4 = memfd (request's 1), close_range on every other
  16  exec              execveat(program, AT_EMPTY_PATH), empty environment, argv warren-compile jailed --purpose policy --isa 7
";
    assert_eq!(text, expected);
}

/// Its uid is its own, as every jail's: what it may read and write is said by folders that it has and nobody else reaches.
#[test]
fn the_pager_has_folders_and_no_device() {
    let pager = Program::Pager(PagerOptions { cache_mib: 4096, memory_mib: 128 });
    let text = plan(&facts(CgroupVersion::V2, Availability::Yes), pager, &LIMITS).to_string();
    for line in [
        "CORE=0 NOFILE=6400 FSIZE=67108864 NPROC=24 MEMLOCK=0",
        "3 = packet socket (request's 0), 4 = folder as a mount, ro (request's 2), 5 = folder as a mount, ro (request's 3), ",
        "6 = folder as a mount (request's 4), close_range on every other",
        "argv warren-pager jailed --cache-mib=4096 --memory-mib=128\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("/dev/kvm") && !text.contains("userfaultfd"), "{text}");
}

/// One at a time, and nothing else in its name's place.
#[test]
fn the_pagers_name_is_its_own() {
    let pager = Program::Pager(PagerOptions { cache_mib: 1, memory_mib: 1 });
    for (name, program, right) in [
        (PAGER_NAME, pager, true),
        ("s1", Program::Vmm, true),
        (PAGER_NAME, Program::Vmm, false),
        ("s1", pager, false),
    ] {
        let spawn = Spawn { name: SandboxName::new(name).unwrap(), program, limits: LIMITS };
        assert_eq!(spawn.is_called_right(), right, "{spawn:?}");
    }
}

#[test]
fn a_pagers_vmm_alone_has_userfaultfd() {
    let text = |program| plan(&facts(CgroupVersion::V2, Availability::Yes), program, &LIMITS).to_string();
    let paged = text(Program::PagedRestore);
    assert!(paged.contains("5 = guest image, 6 = /dev/userfaultfd, close_range on every other"), "{paged}");
    assert!(paged.contains("argv warren-vmm run --restore --paged\n"), "{paged}");
    assert!(!text(Program::Restore).contains("userfaultfd"));
    let machine = LinuxMachine { memory_mib: 176, cpus: 1, disks: 1, disk_bytes: 0, network: false };
    let paged = text(Program::PagedLinux(machine));
    assert!(paged.contains("4 = /dev/kvm, 5 = /dev/userfaultfd, close_range on every other"), "{paged}");
    let words = "argv warren-vmm linux --memory-mib=176 --cpus=1 --devices=block,rng,vsock --paged\n";
    assert!(paged.contains(words), "{paged}");
    assert!(!text(Program::Linux(machine)).contains("userfaultfd"));
}

#[test]
fn a_linux_machine_is_made_ready_for_its_devices() {
    let machine = LinuxMachine { memory_mib: 176, cpus: 2, disks: 3, disk_bytes: 0, network: true };
    let words = argv(Program::Linux(machine)).join(" ");
    assert_eq!(words, "warren-vmm linux --memory-mib=176 --cpus=2 --devices=block,block,block,rng,vsock,net");
    let without = argv(Program::Linux(LinuxMachine { disks: 0, network: false, ..machine }));
    assert_eq!(without.last().map(String::as_str), Some("--devices=rng,vsock"));
}

/// Orders that security rests on, whatever else changes.
#[test]
fn what_must_come_before_what() {
    for version in [CgroupVersion::V1, CgroupVersion::V2] {
        for user in [Availability::Yes, Availability::No(String::new())] {
            for program in [
                Program::Vmm,
                Program::Restore,
                Program::PagedRestore,
                Program::Compile(CompileOptions { purpose: CompilePurpose::Function, isa: 0 }),
                Program::Pager(PagerOptions { cache_mib: 1, memory_mib: 1 }),
                Program::Linux(LinuxMachine {
                    memory_mib: 128,
                    cpus: 1,
                    disks: 2,
                    disk_bytes: 0,
                    network: false,
                }),
            ] {
                let plan = plan(&facts(version, user.clone()), program, &LIMITS);
                let names: Vec<&str> = plan.steps.iter().map(Step::name).collect();
                let at = |name| names.iter().position(|it| *it == name).unwrap();
                for (before, after, why) in [
                    ("cgroup", "clone", "no process outside of where its limits will be"),
                    ("limits", "descriptors", "no program without limits, and no jail without its name"),
                    ("attach", "session", "the child is let go only in its cgroups"),
                    ("attach", "cgroup-namespace", "the namespace's root is where the child is"),
                    ("cgroup-namespace", "identity", "unshare needs the capability"),
                    ("root", "identity", "mount needs the capability"),
                    ("bounding-set", "identity", "dropping from the bounding set needs the capability"),
                    ("identity", "capabilities", "changing the uid needs the capability"),
                    ("capabilities", "no-new-privs", "nothing is given back"),
                    (
                        "identity",
                        "descriptors",
                        "who shares the cgroups' lock has its uid not yet for certain",
                    ),
                    ("not-dumpable", "descriptors", "exec alone comes after the descriptors"),
                ] {
                    assert!(at(before) < at(after), "{before} before {after}: {why}");
                }
                assert_eq!(names.last(), Some(&"exec"));
                // The jailer's part is first, and once more where the request begins.
                let jailers = plan.steps.iter().filter(|step| step.is_jailers()).count();
                let first = plan.steps.iter().take_while(|step| step.is_jailers()).count();
                assert_eq!(
                    (jailers, names.iter().position(|name| *name == "attach")),
                    (first + 1, Some(first - 1))
                );
                // Whatever is asked for, a slot's plans begin alike: that is what can be made ready ahead.
                let facts = facts(version, user.clone());
                let ahead = Plan::ahead(&facts, plan.slot, plan.uid);
                let (groups, rest) = plan.of_request();
                assert_eq!(
                    plan.steps,
                    [ahead, vec![Step::Limits { groups: groups.to_vec() }], rest.to_vec()].concat()
                );
            }
        }
    }
}

#[test]
fn limits_at_their_edges() {
    let settings = |limits: &Limits, version| {
        let plan = plan(&facts(version, Availability::Yes), Program::Vmm, limits);
        let all = plan.of_request().0.iter().flat_map(|group| &group.settings);
        all.map(|it| format!("{}={}", it.file, it.value)).collect::<Vec<_>>().join(" ")
    };
    let cases = [
        (
            Limits { cpu_millis: 1, memory_bytes: 1, ..LIMITS },
            "pids.max=24 memory.limit_in_bytes=4096 memory.memsw.limit_in_bytes=4096 cpu.shares=2",
            "pids.max=24 memory.max=4096 memory.swap.max=0 memory.oom.group=1 cpu.weight=1",
        ),
        (
            Limits { cpu_millis: u32::MAX, cpu_hard: true, memory_bytes: u64::MAX, ..LIMITS },
            "pids.max=24 memory.limit_in_bytes=18446744073709551615 memory.memsw.limit_in_bytes=18446744073709551615 \
             cpu.shares=262144 cpu.cfs_period_us=100000 cpu.cfs_quota_us=429496729500",
            "pids.max=24 memory.max=18446744073709551615 memory.swap.max=0 memory.oom.group=1 cpu.weight=10000 \
             cpu.max=429496729500 100000",
        ),
    ];
    for (limits, v1, v2) in cases {
        assert_eq!(settings(&limits, CgroupVersion::V1), v1);
        assert_eq!(settings(&limits, CgroupVersion::V2), v2);
    }
}
