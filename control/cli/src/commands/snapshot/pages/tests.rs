use super::*;
use warren_proto::v1::{SnapshotState, SnapshotTouch, SnapshotTouches};

fn window(number: u32, [same, filled, zeroed, replaced]: [u32; 4]) -> SnapshotWindow {
    SnapshotWindow { number, same, filled, zeroed, replaced }
}

fn map(windows: &[(u32, [u32; 4])]) -> MapSnapshotResponse {
    let windows = windows.iter().map(|&(number, counts)| window(number, counts)).collect();
    MapSnapshotResponse { windows, window_pages: 16, took_us: 1, touches: None }
}

#[test]
fn a_chunk_is_shared_when_all_of_it_is_the_same() {
    // Eight windows a chunk: the first is the same, the next has one page more, the next lost one, the last is A's alone.
    let found = difference(&map(&[
        (0, [16, 0, 0, 0]),
        (7, [2, 0, 0, 0]),
        (8, [5, 1, 0, 0]),
        (16, [5, 0, 1, 0]),
        (24, [4, 0, 0, 3]),
        (32, [0, 0, 9, 0]),
    ]));
    assert_eq!(
        found,
        Difference {
            pages: PageCounts { same: 32, filled: 1, zeroed: 10, replaced: 3 },
            chunks: (4, 18 + 6 + 5 + 7),
            shared: (1, 18),
        }
    );
    assert_eq!((found.pages.first(), found.pages.second()), (45, 36));
    assert_eq!(difference(&map(&[])), Difference::default());
}

#[test]
fn a_picture_is_as_wide_as_it_says_and_leaves_nothing_out() {
    let text = picture(&map(&[
        (0, [0, 16, 0, 0]),
        (1, [0, 8, 0, 0]),
        (2, [0, 4, 0, 0]),
        (63, [0, 1, 0, 0]),
        (640, [0, 2, 0, 0]),
    ]));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("each cell 64.0 KiB"), "{text}");
    assert_eq!(lines[1], format!("           0x0  |#+:{}.|     29 pages", " ".repeat(60)));
    assert!(lines[2].contains("..."));
    assert_eq!(lines[3], format!("     0x2800000  |.{}|      2 pages", " ".repeat(63)));
    assert!(lines[4].starts_with("31 pages, 124.0 KiB"), "{text}");
    // Memory of a gigabyte, all of it full: cells of a megabyte, and no more rows than a screen has.
    let full: Vec<_> = (0..16_384).map(|number| (number, [0, 16, 0, 0])).collect();
    let text = picture(&map(&full));
    assert!(text.starts_with("each cell 1.0 MiB"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(&"#".repeat(64))).count(), 16);
    // What is far away is as far as it says, and no matter how far.
    assert!(picture(&map(&[(0, [0, 1, 0, 0]), (MOST_WINDOWS, [0, 1, 0, 0])])).contains("2 pages"));
}

#[test]
fn the_order_of_access_is_told_in_ninths() {
    let mut map = map(&[(0, [0, 16, 0, 0]), (5, [0, 16, 0, 0]), (700, [0, 2, 0, 0])]);
    assert!(order(&map).contains("not known"));
    let touch = |number, pages, first| SnapshotTouch { number, pages, first };
    let touches = vec![touch(0, 10, 50), touch(5, 16, 0), touch(640, 1, 89), touch(641, 1, u32::MAX)];
    map.touches = Some(SnapshotTouches { starts: 2, pages: 90, windows: touches });
    let text = order(&map);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("what 2 recorded starts touched"), "{text}");
    assert_eq!(lines[1], format!("           0x0  |6    1{}|     26 pages", " ".repeat(58)));
    assert!(lines[2].contains("..."));
    assert_eq!(lines[3], format!("     0x2800000  |99{}|      2 pages", " ".repeat(62)));
    assert!(lines[4].starts_with("90 pages of 34 in the working set"), "{text}");
}

fn one(function: &str, version: u64, host: &str) -> Snapshot {
    let mut one = Snapshot {
        function: function.into(),
        version,
        key: format!("{function}{version}{host}"),
        host_id: host.into(),
        ..Snapshot::default()
    };
    one.set_state(SnapshotState::Kept);
    one
}

#[test]
fn two_are_of_one_host_and_the_newest() {
    let mut making = one("a", 3, "w2");
    making.set_state(SnapshotState::Making);
    let snapshots = vec![one("a", 1, "w1"), one("a", 2, "w2"), making, one("b", 1, "w2"), one("c", 1, "w3")];
    let all = ListAllSnapshotsResponse { snapshots, silent_hosts: Vec::new() };
    let two = |first: &str, second: &str, host: &str| {
        let which = Two { first: first.into(), second: second.into(), host: host.into() };
        pair(&all, &which).map(|(first, second)| (first.key, second.key))
    };
    assert_eq!(two("a", "b", "").unwrap(), ("a2w2".to_owned(), "b1w2".to_owned()));
    assert_eq!(two("b", "a:2", "w2").unwrap(), ("b1w2".to_owned(), "a2w2".to_owned()));
    assert!(two("a:1", "b", "").unwrap_err().to_string().contains("no host keeps both"));
    assert_eq!(two("a", "nobody", "").unwrap_err().code(), 4);
    assert_eq!(two("a", "b", "w1").unwrap_err().code(), 4);
}
