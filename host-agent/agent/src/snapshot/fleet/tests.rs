//! A Linux runtime's snapshot in an origin, a function's that is told by it, and what becomes of both.

use super::{entry::tests as samples, *};
use crate::{memfd::SealedFile, snapshot::SealedSnapshot};
use clap::Parser as _;
use std::{fs, fs::File, path::Path};
use tempfile::TempDir;
use warren_artefact::{Digest, GuestOf, Part, Processor, SnapshotHead};
use warren_identity::Service;
use warren_state::{
    linux::{LinuxState, device::Devices, vcpu::VcpuState},
    wasm::Area,
};

const PAGE: usize = 4096;
/// Longer than anything in the origin is kept without a name.
const OLD: Duration = Duration::from_hours(72);

/// A host of this fleet, with an origin and an empty cache.
fn host(fleet: &TempDir) -> (TempDir, Arc<Fleet>) {
    let data = tempfile::tempdir().unwrap();
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let flags = [
        flag("data", data.path()),
        flag("identity", fleet.path()),
        flag("jailer", Path::new("/nowhere")),
        flag("snapshot-origin", &fleet.path().join("origin")),
    ];
    let words = std::iter::once("warren-agent").chain(flags.iter().map(String::as_str));
    let credentials = Credentials::load(fleet.path(), Service::Agent).unwrap();
    let opened = Fleet::open(&Config::parse_from(words), &credentials).unwrap().unwrap();
    (data, opened)
}

/// A guest with this memory from its first MiB on.
fn written(of: SnapshotOf, memory: &[u8]) -> SealedSnapshot {
    let vcpu = VcpuState {
        regs: vec![0; 144],
        sregs: vec![0; 312],
        debug: vec![0; 128],
        lapic: vec![0; 1024],
        events: vec![0; 64],
        ..VcpuState::default()
    };
    let state = LinuxState {
        memory_bytes: 64 << 20,
        guest_bytes: 64 << 20,
        template: "host".to_owned(),
        leaves: Vec::new(),
        clock_ns: 0,
        vcpus: vec![vcpu],
        devices: Devices::default().write().unwrap(),
        runs: vec![Area { gpa: 1 << 20, len: memory.len() as u64 }],
        generation: 1,
    };
    let state = warren_state::seal(&state).unwrap();
    let head = SnapshotHead::new(of, state, Part::of(memory), Part::of(b""), 1);
    SealedSnapshot { head, memory: SealedFile::new("memory", memory).unwrap(), disk: None }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let below = entries.flat_map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files(&entry.path()),
        _ => vec![entry.path()],
    });
    below.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtimes_stays_as_long_as_a_functions_is_told_by_it() {
    let place = samples::fleet("h1");
    let (_data, maker) = host(&place);
    let of = samples::linux_of("shell", "1");
    let mut memory = vec![0; 2048 * PAGE];
    getrandom::fill(&mut memory).unwrap();
    let runtime = Arc::new(written(of.runtime().unwrap(), &memory));
    memory[..3 * PAGE].fill(7);
    let function = written(of.clone(), &memory);
    let whole = maker.publish(&runtime, None).await.unwrap();
    let diff = maker.publish(&function, Some(Arc::clone(&runtime))).await.unwrap();
    let bytes = |stored: Stored| stored.new_bytes + stored.shared_bytes;
    assert!(bytes(diff) * 100 < bytes(whole), "{diff:?} after {whole:?}");
    // What another host finds, that has nothing of either.
    let fetched = async || {
        let (data, other) = host(&place);
        let found = other.find_patiently(&of).await?;
        let fetched = other.fetch(&found, data.path()).await.ok()?;
        Some(fetched.head.memory())
    };
    let origin = place.path().join("origin");
    let collect = async |named: &Named| {
        for _ in 0..3 {
            for path in files(&origin) {
                let file = File::options().write(true).open(path).unwrap();
                file.set_modified(SystemTime::now() - OLD).unwrap();
            }
            assert!(maker.collect(named, Duration::from_hours(1)).await.unwrap().is_some());
        }
    };
    let source = of.source().unwrap().to_string();
    let named = Named { sources: [source].into(), functions: ["shell".to_owned()].into() };
    collect(&named).await;
    assert_eq!(fetched().await, Some(function.head.memory()));
    let of_runtime = of.runtime().unwrap();
    assert!(maker.find_patiently(&of_runtime).await.is_some(), "a function begins with it");
    // Its entry is removed by hand: what it named stays as long as something is told by that.
    assert!(maker.remove(of_runtime.key()).await.unwrap());
    collect(&named).await;
    assert_eq!(fetched().await, Some(function.head.memory()));
    collect(&Named::default()).await;
    assert_eq!(fetched().await, None);
    assert_eq!(files(&origin.join("chunks")), Vec::<std::path::PathBuf>::new(), "all of it is garbage");
}

/// Hosts of different processors: neither finds what only the other can use, both have their own, and the garbage takes neither.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_of_two_processors_share_with_their_like_alone() {
    let place = samples::fleet("h1");
    let of = |template: &str, seen: &str| {
        let mut of = samples::linux_of("shell", "1");
        if let GuestOf::Linux { processor, .. } = &mut of.guest {
            *processor = Processor { template: template.to_owned(), seen: Digest::of(seen.as_bytes()) };
        }
        of
    };
    // A host each: two of one family, and what the same hosts would give if they gave all they have.
    let guests = [of("amd-zen", "zen"), of("host", "zen 3"), of("host", "zen 4")];
    let mut kept = Vec::new();
    for (host_number, of) in (1..).zip(&guests) {
        let (_data, fleet) = host(&place);
        assert!(fleet.find_patiently(of).await.is_none(), "another's is taken for this one's");
        let runtime = Arc::new(written(of.runtime().unwrap(), &vec![host_number; 8 * PAGE]));
        let function = written(of.clone(), &vec![host_number + 10; 8 * PAGE]);
        fleet.publish(&runtime, None).await.unwrap();
        fleet.publish(&function, Some(Arc::clone(&runtime))).await.unwrap();
        kept.push((function.head.memory(), runtime.head.memory()));
    }
    let (data, like) = host(&place);
    for (of, (function, runtime)) in guests.iter().zip(kept) {
        for (of, memory) in [(of.clone(), function), (of.runtime().unwrap(), runtime)] {
            let found = like.find_patiently(&of).await.unwrap();
            assert_eq!(like.fetch(&found, data.path()).await.unwrap().head.memory(), memory);
        }
    }
}

/// What a diff calls its base is what it has to be: another good image in its place is none, and no page of it is served.
#[tokio::test(flavor = "multi_thread")]
async fn another_base_than_the_one_that_was_named_is_refused() {
    let place = samples::fleet("h1");
    let (_data, maker) = host(&place);
    let of = samples::linux_of("shell", "1");
    let mut memory = vec![0; 64 * PAGE];
    getrandom::fill(&mut memory).unwrap();
    let runtime = Arc::new(written(of.runtime().unwrap(), &memory));
    memory[..PAGE].fill(7);
    let function = written(of.clone(), &memory);
    memory[PAGE..2 * PAGE].fill(8);
    let other = written(samples::linux_of("shell", "2").runtime().unwrap(), &memory);
    maker.publish(&runtime, None).await.unwrap();
    maker.publish(&function, Some(Arc::clone(&runtime))).await.unwrap();
    maker.publish(&other, None).await.unwrap();
    let fetched = async || {
        let (data, fleet) = host(&place);
        let found = fleet.find_patiently(&of).await.unwrap();
        fleet.fetch(&found, data.path()).await.map(|fetched| fetched.head.memory())
    };
    assert_eq!(fetched().await.unwrap(), function.head.memory());
    let manifest = async |of: &SnapshotOf| {
        let name = maker.find_patiently(of).await.unwrap().memory.to_string();
        let all = files(&place.path().join("origin"));
        all.into_iter().find(|path| path.to_string_lossy().contains(&name)).unwrap()
    };
    let base = manifest(runtime.head.of()).await;
    let good = fs::read(&base).unwrap();
    fs::copy(manifest(other.head.of()).await, &base).unwrap();
    assert!(fetched().await.is_err(), "an image on another base");
    fs::write(&base, good).unwrap();
    assert_eq!(fetched().await.unwrap(), function.head.memory());
}
