//! Real runtimes of Debian's archive: minutes and a network, so only in the full form (`WARREN_SOAK=1`, root).

#![allow(clippy::unwrap_used, reason = "tests")]

use warren_image::{Recipe, Shelf, recipe::EPOCH, runtime};

/// Builds a runtime twice, in two places; `contains` is a package of it.
fn twice(name: &str, contains: &str) {
    if std::env::var_os("WARREN_SOAK").is_none() || !rustix::process::geteuid().is_root() {
        // Past libtest's capturing.
        let line = format!(
            "warren-skipped: image::runtime: {name} of real packages; `cargo xtask soak runtime` as root\n"
        );
        rustix::io::write(std::io::stdout(), line.as_bytes()).unwrap();
        return;
    }
    let recipe = Recipe::named(name).unwrap();
    let options = runtime::Options { mirror: None, epoch: EPOCH, fresh: false };
    let dir = tempfile::tempdir().unwrap();
    let build = |folder: &str| {
        runtime::build(&recipe, &options, &Shelf::new(dir.path().join(folder)), &|step| println!("{step}"))
            .unwrap()
    };
    let began = std::time::Instant::now();
    let (first, second) = (build("a"), build("b"));
    println!("{name} twice: {:.0?}", began.elapsed());
    let again = build("a");
    assert_eq!(first.manifest, second.manifest);
    assert!(again.kept && !first.kept && !second.kept);
    let mut inside = first.manifest.packages.iter().chain(&first.manifest.extra);
    assert!(inside.any(|package| package.starts_with(contains)), "{:?}", first.manifest);
    // What it was compiled with is not in it.
    assert!(
        !first.manifest.packages.iter().any(|package| package.starts_with("g++")),
        "{:?}",
        first.manifest
    );
}

#[test]
fn base_twice_gives_the_same_bytes() {
    twice("debian-base", "curl");
}

#[test]
fn python_twice_gives_the_same_bytes() {
    twice("debian-python", "awslambdaric ");
}

/// Its native code is compiled each time.
#[test]
fn node_twice_gives_the_same_bytes() {
    twice("debian-node", "aws-lambda-ric ");
}
