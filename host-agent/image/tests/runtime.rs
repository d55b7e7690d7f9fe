//! Real runtimes of Debian's archive: minutes and a network, so only in the full form (`WARREN_SOAK=1`, root).

#![allow(clippy::unwrap_used, reason = "tests")]

use warren_image::{Recipe, Shelf, recipe::EPOCH, runtime};

#[test]
fn two_builds_give_the_same_bytes() {
    if std::env::var_os("WARREN_SOAK").is_none() || !rustix::process::geteuid().is_root() {
        println!("warren-skipped: image::runtime: real packages; WARREN_SOAK=1 as root");
        return;
    }
    let recipe = Recipe::named("debian-python").unwrap();
    let options = runtime::Options { mirror: None, epoch: EPOCH, fresh: false };
    let dir = tempfile::tempdir().unwrap();
    let build = |folder: &str| {
        runtime::build(&recipe, &options, &Shelf::new(dir.path().join(folder)), &|step| println!("{step}"))
            .unwrap()
    };
    let (first, second, again) = (build("a"), build("b"), build("a"));
    assert_eq!(first.manifest, second.manifest);
    assert!(again.kept && !first.kept && !second.kept);
    assert!(first.manifest.packages.iter().any(|package| package.starts_with("python3 ")));
}
