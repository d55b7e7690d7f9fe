//! Who may call what of `warren-control`: every method of every service there is, by everybody there is, over real TLS. At agents the
//! same table is tried by their own suite.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod world;

use std::{collections::BTreeSet, path::Path};
use warren_identity::{HostId, Peer};
use world::{
    World,
    callers::{Callers, TABLE, everybody_calls_everything, methods_in},
};

#[test]
fn every_method_has_one_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut all = methods_in(&root.join("control/proto/proto/warren/v1"));
    all.extend(methods_in(&root.join("host-agent/chunks/proto/warren/chunks/v1")));
    let rows =
        TABLE.iter().flat_map(|(service, methods, ..)| methods.iter().map(|method| (*service, *method)));
    let rows: Vec<(String, String)> = rows.map(|(one, other)| (one.to_owned(), other.to_owned())).collect();
    let as_set = |list: &[(String, String)]| list.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(as_set(&all), as_set(&rows));
    assert_eq!(rows.len(), all.len(), "a method in two rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_calls_everything_of_control() {
    let world = World::start(10);
    let callers = Callers::of(&world.identity_dir(), &HostId::new("w1").unwrap());
    let (tries, wrong) =
        everybody_calls_everything(&callers, &Peer::Control, &world.control.to_string()).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{tries} calls, each with the verdict of its row");
}
