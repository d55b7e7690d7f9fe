use super::*;
use std::{os::unix::fs::symlink, sync::LazyLock};
use warren_abi::isa::IsaSet;
use warren_artefact::{Digest, GuestOf, Part, Processor};

const MEMORY: usize = 8192;
/// When all of them were made, seconds since 1970: a minute ago.
static MADE: LazyLock<u64> = LazyLock::new(|| UNIX_EPOCH.elapsed().unwrap().as_secs() - 60);

fn key() -> (tempfile::TempDir, SigningKey) {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::load_or_create(&dir.path().join("key")).unwrap();
    (dir, key)
}

/// A disk of 6 bytes, as it is kept.
static DISK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::new();
    disk().write(&mut bytes).unwrap();
    bytes
});

fn disk() -> KeptDisk {
    KeptDisk::filled(Path::new("/tmp"), |mut file| file.write_all(b"a disk")).unwrap()
}

/// Of a Linux function, whose files are the same for all.
fn of(function: &str) -> SnapshotOf {
    let [runtime, kernel, initrd, machine, seen] = [Digest::of(b"x"); 5];
    let processor = Processor { template: "host".into(), seen };
    SnapshotOf {
        function: function.into(),
        version: 1,
        task: Some(Digest::of(b"module")),
        told: Digest::of(function.as_bytes()),
        guest: GuestOf::Linux { runtime, kernel, initrd, machine, processor, protocol_version: 5 },
    }
}

fn snapshot(function: &str) -> SealedSnapshot {
    let memory = [7; MEMORY];
    let head = SnapshotHead::new(of(function), b"state".to_vec(), Part::of(&memory), Part::of(&DISK), *MADE);
    let disk = Some(Arc::new(disk()));
    SealedSnapshot { head, memory: SealedFile::new("memory", &memory).unwrap(), disk }
}

/// Of a Wasm function, without a disk.
fn wasm(function: &str) -> SealedSnapshot {
    let [source, code, program] = [b"module", b"code..", b"guest."].map(|bytes| Digest::of(bytes));
    let guest = GuestOf::Wasm { source, code, program, abi_version: 2, isa: IsaSet::BASELINE };
    let of = SnapshotOf { task: None, guest, ..of(function) };
    let memory = [7; MEMORY];
    let head = SnapshotHead::new(of, b"state".to_vec(), Part::of(&memory), Part::of(b""), *MADE);
    SealedSnapshot { head, memory: SealedFile::new("memory", &memory).unwrap(), disk: None }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "tmp")
        .collect();
    names.sort();
    names
}

#[test]
fn kept_and_served_again() {
    let (dir, (_keys, key)) = (tempfile::tempdir().unwrap(), key());
    let shelf = Shelf::open(dir.path().to_owned(), 1 << 20).unwrap();
    assert!(shelf.get(&of("a"), &[key.verifying_key()]).is_none());
    shelf.put(&snapshot("a"), &key).unwrap();
    let found = shelf.get(&of("a"), &[key.verifying_key()]).unwrap();
    assert_eq!((found.head, found.memory.len()), (snapshot("a").head, MEMORY as u64));
    let mut kept = Vec::new();
    found.disk.unwrap().write(&mut kept).unwrap();
    assert_eq!(kept, *DISK);
    let plain = wasm("a");
    shelf.put(&plain, &key).unwrap();
    let found = shelf.get(plain.head.of(), &[key.verifying_key()]).unwrap();
    assert!(found.disk.is_none() && found.head == plain.head);
    shelf.remove(plain.head.of());
    assert!(shelf.get(&of("b"), &[key.verifying_key()]).is_none());
    shelf.remove(&of("a"));
    shelf.remove(&of("a"));
    assert!(names(dir.path()).is_empty());
}

/// Whatever is wrong with a file, it is not served and gone afterwards.
#[test]
fn what_is_not_right_is_removed() {
    let (dir, (_keys, good), (_others, other)) = (tempfile::tempdir().unwrap(), key(), key());
    let shelf = Shelf::open(dir.path().to_owned(), 1 << 20).unwrap();
    let path = shelf.path(&of("a"));
    let flip = |at: usize| {
        let mut bytes = fs::read(&path).unwrap();
        let at = at.min(bytes.len() - 1);
        bytes[at] ^= 4;
        fs::write(&path, bytes).unwrap();
    };
    let cut = |len: u64| File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
    let cases: [(&str, bool, &dyn Fn()); 10] = [
        ("a bit of the beginning", true, &|| flip(3)),
        ("a bit of what is signed", true, &|| flip(40)),
        ("a bit of the padding", true, &|| flip(4000)),
        ("a bit of the memory", false, &|| flip(4096 + 77)),
        ("the last bit", false, &|| flip(usize::MAX)),
        ("cut in the memory", false, &|| cut(4096 + 100)),
        ("cut in the disk", false, &|| cut(4096 + MEMORY as u64 + 2)),
        ("cut at the memory", false, &|| cut(4096)),
        ("empty", true, &|| cut(0)),
        ("longer", false, &|| File::options().append(true).open(&path).unwrap().write_all(b"x").unwrap()),
    ];
    for (what, in_head, spoil) in cases {
        shelf.put(&snapshot("a"), &good).unwrap();
        spoil();
        let (key, trusted) = (of("a").key(), [good.verifying_key()]);
        assert!(shelf.verify(key, &trusted).is_err(), "{what} verifies");
        let seen = shelf.look("a", &trusted).unwrap();
        assert_eq!(seen.len(), 1, "{what} is not seen");
        // A head says nothing of the memory behind it.
        assert_eq!(seen[0].head.is_err(), in_head, "{what}");
        assert!(shelf.get(&of("a"), &[good.verifying_key()]).is_none(), "{what}");
        assert!(names(dir.path()).is_empty(), "{what} stays");
    }
    shelf.put(&snapshot("a"), &other).unwrap();
    assert!(shelf.get(&of("a"), &[good.verifying_key()]).is_none(), "signed by another");
    // A good one of something else, under this name.
    shelf.put(&snapshot("b"), &good).unwrap();
    fs::rename(shelf.path(&of("b")), &path).unwrap();
    assert!(shelf.verify(of("a").key(), &[good.verifying_key()]).is_err(), "another's verifies");
    assert!(shelf.get(&of("a"), &[good.verifying_key()]).is_none(), "another's");
    // A link to a good one elsewhere.
    shelf.put(&snapshot("a"), &good).unwrap();
    fs::rename(&path, dir.path().join("tmp/elsewhere")).unwrap();
    symlink(dir.path().join("tmp/elsewhere"), &path).unwrap();
    assert!(shelf.get(&of("a"), &[good.verifying_key()]).is_none(), "a link");
    assert!(names(dir.path()).is_empty());
}

/// A host without room for what is in one does not lose it for that.
#[test]
fn what_this_host_has_no_room_for_stays() {
    let (dir, (_keys, good)) = (tempfile::tempdir().unwrap(), key());
    let shelf = Shelf::open(dir.path().to_owned(), 1 << 20).unwrap();
    shelf.put(&snapshot("a"), &good).unwrap();
    let get = || shelf.get(&of("a"), &[good.verifying_key()]);
    fs::remove_dir(shelf.temporary()).unwrap();
    assert!(get().is_none() && shelf.path(&of("a")).exists());
    fs::create_dir(shelf.temporary()).unwrap();
    assert!(get().is_some());
    // No room while it is copied, which is told from a copy that ends, or that has no form.
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let (head, mut file) = shelf.open_judged(of("a").key(), &[good.verifying_key()]).unwrap().unwrap();
    let copied = Room::made(full(), |memory| head.copy_memory(&mut file, memory));
    assert!(matches!(copied, Err(Unserved::Host(error)) if error.kind() == io::ErrorKind::StorageFull));
    let cut = Room::made(full(), |memory| head.copy_memory(&mut io::empty(), memory));
    assert!(matches!(cut, Err(Unserved::Wrong(SnapshotError::Memory("length")))));
    let disk = tempfile::tempfile().unwrap();
    let formless =
        Room::made(Unpacking::new(&disk, 1 << 20), |disk| head.copy_disk(&mut io::repeat(7), disk));
    assert!(matches!(formless, Err(Unserved::Wrong(SnapshotError::Io(_)))));
}

#[test]
fn the_oldest_makes_room() {
    let (dir, (_keys, key)) = (tempfile::tempdir().unwrap(), key());
    // Two fit, with their heads.
    let shelf = Shelf::open(dir.path().to_owned(), 2 * (MEMORY as u64 + 4096)).unwrap();
    // Without disks: what those take beside their files is another case.
    let of = |function: &str| wasm(function).head.of().clone();
    let at = |function: &str, seconds| {
        let file = File::options().append(true).open(shelf.path(&of(function))).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    };
    shelf.put(&wasm("a"), &key).unwrap();
    shelf.put(&wasm("b"), &key).unwrap();
    at("a", 10);
    at("b", 20);
    // Used again: not the oldest any more.
    assert!(shelf.get(&of("a"), &[key.verifying_key()]).is_some());
    shelf.put(&wasm("c"), &key).unwrap();
    let there = |function| shelf.path(&of(function)).exists();
    assert!(there("a") && !there("b") && there("c"));
    let tiny = Shelf::open(dir.path().join("tiny"), 100).unwrap();
    assert_eq!(tiny.put(&snapshot("a"), &key).unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
}

/// A disk that is in use has no name and takes room all the same: less is kept beside it, but never not what is used.
#[test]
fn a_disk_in_use_is_counted() {
    let (dir, (_keys, key)) = (tempfile::tempdir().unwrap(), key());
    let wide = Shelf::open(dir.path().to_owned(), 1 << 20).unwrap();
    wide.put(&snapshot("a"), &key).unwrap();
    wide.put(&snapshot("b"), &key).unwrap();
    let file_bytes = fs::metadata(wide.path(&of("a"))).unwrap().len();
    assert_eq!(wide.nameless.bytes(), 0, "those that were put are no more");
    let there = |function| wide.path(&of(function)).exists();
    // Both fit to the byte, and no disk beside them.
    let shelf = Shelf::open(dir.path().to_owned(), 2 * file_bytes).unwrap();
    let mut used = shelf.get(&of("a"), &[key.verifying_key()]).unwrap();
    let bytes = shelf.nameless.bytes();
    assert!(bytes > 0 && bytes < 1 << 20, "{bytes}");
    assert!(there("a") && !there("b"));
    // Kept again, it is the same disk.
    shelf.put(&used, &key).unwrap();
    assert_eq!(shelf.nameless.bytes(), bytes);
    used.disk = None;
    assert_eq!(shelf.nameless.bytes(), 0);
}

#[test]
fn what_nothing_names_goes_and_half_made_ones_too() {
    let (dir, (_keys, key)) = (tempfile::tempdir().unwrap(), key());
    let shelf = Shelf::open(dir.path().to_owned(), 1 << 20).unwrap();
    let trusted = [key.verifying_key()];
    for function in ["a", "b"] {
        shelf.put(&snapshot(function), &key).unwrap();
    }
    // What both begin with.
    let runtime = of("a").runtime().unwrap();
    let memory = snapshot("a").memory;
    let head =
        SnapshotHead::new(runtime.clone(), b"state".to_vec(), Part::of(&[7; MEMORY]), Part::of(b""), *MADE);
    shelf.put(&SealedSnapshot { head, memory, disk: None }, &key).unwrap();
    assert_eq!(shelf.look("", &trusted).unwrap().iter().filter(|one| one.function.is_empty()).count(), 1);
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<HashSet<_>>();
    let source = Digest::of(b"module").to_string();
    let named = (set(&[&source]), set(&["a"]));
    assert_eq!(
        shelf.retain(&named.0, &named.1, Duration::from_hours(1), &trusted).unwrap().files,
        0,
        "young"
    );
    assert_eq!(shelf.retain(&named.0, &named.1, Duration::ZERO, &trusted).unwrap().files, 1);
    assert!(shelf.path(&of("a")).exists() && !shelf.path(&of("b")).exists());
    assert!(shelf.get(&runtime, &trusted).is_some(), "one begins with it still");
    assert_eq!(
        shelf.retain(&set(&[]), &named.1, Duration::ZERO, &trusted).unwrap().files,
        2,
        "its code is not named"
    );
    assert!(names(dir.path()).is_empty(), "nothing begins with it any more");
    fs::write(dir.path().join("tmp/half"), "x").unwrap();
    Shelf::open(dir.path().to_owned(), 1 << 20).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

/// Looking changes nothing: neither what is there, nor what is thrown out next.
#[test]
fn who_looks_uses_nothing() {
    let (dir, (_keys, key)) = (tempfile::tempdir().unwrap(), key());
    let trusted = [key.verifying_key()];
    let shelf = Shelf::open(dir.path().to_owned(), 1 << 20).unwrap();
    for function in ["a", "b"] {
        shelf.put(&snapshot(function), &key).unwrap();
    }
    fs::write(dir.path().join("something else"), "x").unwrap();
    let made = UNIX_EPOCH + Duration::from_secs(snapshot("a").head.created_unix_s());
    assert_eq!(shelf.look("", &trusted).unwrap().len(), 2);
    let seen = shelf.look("a", &trusted).unwrap().pop().unwrap();
    assert_eq!((seen.key, seen.function.as_str(), seen.used), (of("a").key(), "a", made));
    assert_eq!(
        (seen.file_bytes, seen.head.unwrap().memory_len()),
        ((4096 + MEMORY + DISK.len()) as u64, MEMORY as u64)
    );
    assert_eq!(shelf.verify(of("a").key(), &trusted).unwrap(), Some(MEMORY as u64));
    assert_eq!(shelf.look("a", &trusted).unwrap().pop().unwrap().used, made, "it counts as used");
    shelf.touch(&of("a"));
    assert!(shelf.look("a", &trusted).unwrap().pop().unwrap().used > made);
    assert!(shelf.remove_key(of("a").key()).unwrap() && !shelf.remove_key(of("a").key()).unwrap());
    assert_eq!(shelf.verify(of("a").key(), &trusted).unwrap(), None);
    assert_eq!(shelf.look("", &trusted).unwrap().len(), 1);
}
