//! What a program finds in its jail, as it sees it itself.

mod common;

use common::{Jailer, LIMITS};
use serde_json::{Value, json};

#[test]
fn the_jail_from_inside() {
    let jailer = Jailer::start(&[]);
    let mut client = jailer.connect();
    let mut running = client.spawn("inside");
    let uid = jailer.uid_base;
    assert_eq!((running.jailed.uid, running.jailed.slot), (uid, 0));
    let report = running.report();
    eprintln!("{report:#}");
    eprintln!("spawn_us {}", running.jailed.spawn_us);
    client.kill("inside");
    jailer.assert_clean();
    let _: Value = json!({});
    let _ = LIMITS;
}
