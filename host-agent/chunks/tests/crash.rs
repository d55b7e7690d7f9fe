//! `kill -9` of a process that writes both durable tiers in a loop: never a wrong byte, nothing acknowledged lost.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it found by failing")]

mod common;

use common::{block_on, hasty, is_full_form, object};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};
use warren_chunks::{
    l1::{Disk, Found},
    l3::{Area, Origin},
};

/// Where the child works; a process with it set is the child.
const CHILD: &str = "WARREN_CHUNKS_CHILD";
/// Small enough that the child evicts all the time.
const ROOM: u64 = 8 << 20;

/// The child: writes for ever, and says what was acknowledged. Run as a test, there is nothing to do.
#[test]
fn child() {
    let Some(place) = std::env::var_os(CHILD) else { return };
    let place = Path::new(&place);
    let origin = Origin::folder(&place.join("origin"), hasty()).unwrap();
    let disk = Disk::open(&place.join("disk"), ROOM).unwrap();
    let mut said = std::io::stdout();
    block_on(async {
        for number in std::process::id().. {
            let (name, sealed) = object(number, 1_500_000);
            origin.put(name, sealed.clone()).await.unwrap();
            writeln!(said, "kept {name}").unwrap();
            said.flush().unwrap();
            disk.put(name, &sealed).unwrap();
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_and_no_byte_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let kills = if is_full_form() { 100 } else { 5 };
    let mut acknowledged = BTreeSet::new();
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Another place in its loop each time.
        let mut more = 3 + kill % 7;
        while more > 0 {
            let line = lines.next().unwrap().unwrap();
            if let Some(name) = line.trim().rsplit_once("kept ") {
                acknowledged.insert(warren_chunks::Name::from_hex(name.1).unwrap());
                more -= 1;
            }
        }
        child.kill().unwrap();
        // What it said before it was dead counts too; a line that is cut does not.
        for line in lines.map_while(Result::ok) {
            acknowledged
                .extend(line.rsplit_once("kept ").and_then(|said| warren_chunks::Name::from_hex(said.1)));
        }
        child.wait().unwrap();
        check(dir.path(), &acknowledged);
    }
    assert!(acknowledged.len() >= kills * 3);
}

fn check(place: &Path, acknowledged: &BTreeSet<warren_chunks::Name>) {
    let disk = Disk::open(&place.join("disk"), ROOM).unwrap();
    assert_eq!(fs::read_dir(place.join("disk/tmp")).unwrap().count(), 0, "leftovers on the disk");
    assert!(disk.bytes() <= ROOM);
    for name in disk.names() {
        assert!(matches!(disk.get(name).unwrap(), Found::Hit(_)), "half a chunk on the disk");
    }
    let origin = Origin::folder(&place.join("origin"), hasty()).unwrap();
    block_on(async {
        for held in origin.list(Area::Live).await.unwrap() {
            origin.get(Area::Live, held.name, 2 << 20).await.expect("half a chunk at the origin");
        }
        for name in acknowledged {
            origin.held(Area::Live, *name).await.expect("an acknowledged chunk is lost");
        }
    });
}
