use super::{super::Stored, super::entry::tests as samples, *};
use warren_identity::HostId;

fn entry(function: &str) -> FleetSnapshot {
    let dir = samples::fleet("h1");
    FleetSnapshot {
        head: samples::head(function),
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
        assert_eq!(
            (named.fate(Some(&echo), true), named.fate(Some(&echo), false)),
            (old, young),
            "{named:?}"
        );
        assert_eq!((named.fate(None, true), named.fate(None, false)), (Fate::Goes, Fate::Stays));
    }
}
