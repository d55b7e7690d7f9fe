use super::*;
use std::fs;

const ROOM: u64 = 1 << 20;

fn object(number: u32, bytes: usize) -> (Name, Vec<u8>) {
    let sealed: Vec<u8> = number.to_le_bytes().into_iter().cycle().take(bytes).collect();
    (Name::of(&sealed), sealed)
}

fn open(dir: &tempfile::TempDir, room: u64) -> Disk {
    Disk::open(dir.path(), room).unwrap()
}

fn file_of(dir: &tempfile::TempDir, name: Name) -> PathBuf {
    let shard = dir.path().join(name.shard());
    let is = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&name.to_string());
    fs::read_dir(shard).unwrap().map(|entry| entry.unwrap().path()).find(is).unwrap()
}

fn hit(disk: &Disk, name: Name) -> Option<Bytes> {
    match disk.get(name).unwrap() {
        Found::Hit(sealed) => Some(sealed),
        Found::Miss | Found::Damaged => None,
    }
}

#[test]
fn what_was_put_is_there_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (name, sealed) = object(1, 10_000);
    let disk = open(&dir, ROOM);
    assert!(matches!(disk.get(name).unwrap(), Found::Miss));
    assert_eq!(disk.put(name, &sealed).unwrap(), Put::Stored);
    assert_eq!(disk.put(name, &sealed).unwrap(), Put::Present);
    assert_eq!(hit(&disk, name).unwrap(), sealed);
    assert!(matches!(Disk::open(dir.path(), ROOM), Err(DiskError::Busy(_))));
    let taken = disk.bytes();
    drop(disk);
    let disk = open(&dir, ROOM);
    assert_eq!((hit(&disk, name).unwrap(), disk.bytes()), (sealed.into(), taken));
}

#[test]
fn leftovers_of_a_crash_are_cleared() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir, ROOM));
    let (name, sealed) = object(1, 100);
    fs::create_dir_all(dir.path().join(name.shard())).unwrap();
    fs::write(dir.path().join("tmp/77-1"), b"half").unwrap();
    fs::write(dir.path().join(name.shard()).join("nobody"), b"?").unwrap();
    // The same name twice, as when a crash came between eviction and removal: one is enough.
    for number in ["5", "6"] {
        fs::write(dir.path().join(name.shard()).join(format!("{name}.{number}")), &sealed).unwrap();
    }
    let disk = open(&dir, ROOM);
    assert_eq!(hit(&disk, name).unwrap(), sealed);
    assert_eq!(fs::read_dir(dir.path().join(name.shard())).unwrap().count(), 1);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn whatever_happened_to_a_file_it_is_not_taken_for_a_chunk() {
    let cases: [fn(&Path); 5] = [
        |path| fs::write(path, b"").unwrap(),
        |path| File::options().write(true).open(path).unwrap().set_len(999).unwrap(),
        |path| File::options().write(true).open(path).unwrap().set_len(1001).unwrap(),
        |path| fs::write(path, vec![9; 1000]).unwrap(),
        |path| fs::remove_file(path).unwrap(),
    ];
    for (number, damage) in cases.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let disk = open(&dir, ROOM);
        let (name, sealed) = object(1, 1000);
        disk.put(name, &sealed).unwrap();
        damage(&file_of(&dir, name));
        assert!(matches!(disk.get(name).unwrap(), Found::Damaged), "case {number}");
        assert!(matches!(disk.get(name).unwrap(), Found::Miss), "case {number}");
        // Fetched elsewhere, it is kept again.
        assert_eq!(disk.put(name, &sealed).unwrap(), Put::Stored);
        assert_eq!(hit(&disk, name).unwrap(), sealed);
    }
}

#[test]
fn the_bound_holds_on_the_disk_and_what_is_pinned_stays() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(&dir, ROOM);
    let (first, bytes) = object(0, 100_000);
    disk.put(first, &bytes).unwrap();
    let pinned = disk.pin(first).unwrap().unwrap();
    for number in 1..40 {
        let (name, sealed) = object(number, 100_000);
        disk.put(name, &sealed).unwrap();
        let on_disk: u64 =
            disk.names().iter().map(|name| file_of(&dir, *name).metadata().unwrap().len()).sum();
        let files = fs::read_dir(dir.path()).unwrap().count();
        assert!(on_disk <= ROOM && files < 45, "{on_disk} bytes, {files} entries");
    }
    assert_eq!(io::read_to_string(&pinned.file).is_ok(), String::from_utf8(bytes.clone()).is_ok());
    assert_eq!((pinned.bytes(), hit(&disk, first).unwrap()), (100_000, bytes.into()));
    drop(pinned);
    // With less room than before, the youngest stay.
    drop(disk);
    let disk = open(&dir, 250_000);
    assert!(disk.bytes() <= 250_000 && !disk.names().is_empty());
}

#[test]
fn a_disk_full_of_what_is_in_use_says_so_and_serves_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(&dir, 220_000);
    let [(one, first), (two, second), (_, large)] =
        [object(1, 100_000), object(2, 100_000), object(3, 300_000)];
    disk.put(one, &first).unwrap();
    let _pinned = disk.pin(one).unwrap().unwrap();
    disk.put(two, &second).unwrap();
    let _pinned_too = disk.pin(two).unwrap().unwrap();
    let (three, third) = object(4, 50_000);
    assert!(matches!(disk.put(three, &third), Err(DiskError::InUse)));
    assert!(matches!(disk.put(Name::of(&large), &large), Err(DiskError::InUse)));
    assert_eq!(hit(&disk, one).unwrap(), first);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(&dir, ROOM);
    let (name, sealed) = object(1, 1000);
    // A file where the shard's folder should be.
    fs::write(dir.path().join(name.shard()), b"").unwrap();
    assert!(matches!(disk.put(name, &sealed), Err(DiskError::File(_))));
    assert!(matches!(disk.get(name).unwrap(), Found::Miss));
    fs::remove_file(dir.path().join(name.shard())).unwrap();
    assert_eq!(disk.put(name, &sealed).unwrap(), Put::Stored);
}
