use super::{super::Stored, super::entry::tests as samples, *};
use warren_artefact::{Part, SnapshotHead, SnapshotOf};
use warren_identity::HostId;

fn entry(function: &str) -> FleetSnapshot {
    entry_of(samples::head(function))
}

fn entry_of(head: SnapshotHead) -> FleetSnapshot {
    let dir = samples::fleet("h1");
    FleetSnapshot {
        head,
        memory: Name([1; 32]),
        disk: None,
        key: samples::keys(dir.path()).tenant(),
        by: HostId::new("h1").unwrap(),
        sequence: 0,
        stored: Stored::default(),
    }
}

#[test]
fn named_ones_stay_and_young_ones_and_what_is_believed_by_nobody_goes_when_it_is_old() {
    let echo = entry("echo");
    let source = echo.head.of().source().unwrap().to_string();
    let named = |sources: &[&str], functions: &[&str]| Named {
        sources: sources.iter().map(ToString::to_string).collect(),
        functions: functions.iter().map(ToString::to_string).collect(),
    };
    for (named, old, young) in [
        (named(&[&source], &["echo"]), Fate::Root, Fate::Root),
        (named(&[&source], &["other"]), Fate::Goes, Fate::Root),
        (named(&["other"], &["echo"]), Fate::Goes, Fate::Root),
        (Named::default(), Fate::Goes, Fate::Root),
    ] {
        let fate = |entry, is_old| named.fate(entry, is_old, &HashSet::new());
        assert_eq!((fate(Some(&echo), true), fate(Some(&echo), false)), (old, young), "{named:?}");
        assert_eq!((fate(None, true), fate(None, false)), (Fate::Goes, Fate::Stays));
    }
}

#[test]
fn a_runtimes_goes_when_no_root_begins_with_it() {
    let [of, other] = ["1", "2"].map(|kernel| samples::linux_of("shell", kernel));
    let head = |of: &SnapshotOf| {
        SnapshotHead::new(of.clone(), vec![7; 100], Part::of(b"memory"), Part::of(b"disk"), 1)
    };
    let function = entry_of(head(&of));
    let [runtime, others] = [&of, &other].map(|of| entry_of(head(&of.runtime().unwrap())));
    let source = of.source().unwrap().to_string();
    let named = Named { sources: [source].into(), functions: ["shell".to_owned()].into() };
    let fates = |named: &Named, is_old: bool| {
        let begun_with =
            named.begun_with([&function, &runtime, &others].map(|entry| (entry, is_old)).into_iter());
        [&function, &runtime, &others].map(|entry| named.fate(Some(entry), is_old, &begun_with))
    };
    assert_eq!(fates(&named, true), [Fate::Root, Fate::Root, Fate::Goes]);
    assert_eq!(fates(&Named::default(), true), [Fate::Goes; 3]);
    assert_eq!(fates(&Named::default(), false), [Fate::Root; 3], "young");
}
