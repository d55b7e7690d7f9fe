//! Chunks of shared snapshots that neighbours have: asked for, given to nobody else, and read again before they rot.

use crate::{
    rig::{Caller, Rig, module, until, version},
    shared::{Origin, flip, publish, walk},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};
use tonic::Code;
use warren_chunks::l2::v1::{GetRequest, chunks_client::ChunksClient};
use warren_identity::Service;
use warren_proto::v1::{self, FunctionVersion, SharedSnapshots};

/// Tells each of these hosts of the others.
fn introduce(rigs: &[&Rig], revision: u64) {
    let list = v1::Neighbours { revision, all: rigs.iter().map(|rig| rig.as_neighbour()).collect() };
    for rig in rigs {
        rig.control.introduce(list.clone());
    }
}

/// What a host last said of its shared snapshots, once this is so.
async fn once(rig: &Rig, what: &str, is_so: impl Fn(&SharedSnapshots) -> bool) -> SharedSnapshots {
    until(what, async || rig.control.last_heartbeat().1.shared.filter(|shared| is_so(shared))).await
}

async fn prepared(rig: &Rig, name: &str) -> (Caller, FunctionVersion) {
    let (caller, code) = (Caller::new(rig).await, module::obedient());
    let function = version(name, &code, |_| ());
    caller.prepare(&function, &code, b"").await.unwrap();
    (caller, function)
}

/// The chunks a host keeps itself.
fn own(rig: &Rig) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&rig.dir.path().join("agent/shared-chunks"), &mut found).unwrap();
    // Beside them are a lock and what is being written.
    found.retain(|path| path.extension().is_some());
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_origin_lost_a_neighbour_has() {
    let origin = Origin::new();
    let flags = ["--snapshots-mib=64", "--no-pager", &origin.flag()];
    let mut first = Rig::start(&flags).await;
    let second = first.start_beside("h2", &flags).await;
    for name in ["echo", "late"] {
        let (caller, function) = prepared(&first, name).await;
        publish(&caller, &function, &origin).await;
    }
    introduce(&[&first, &second], 7);
    for rig in [&first, &second] {
        once(rig, "it knows its neighbour", |shared| shared.neighbours == 1).await;
    }
    let lose = || origin.files("chunks").iter().for_each(|path| fs::remove_file(path).unwrap());
    lose();
    let (caller, echo) = prepared(&second, "echo").await;
    let restored = caller.create("s1", &echo).await.unwrap();
    assert!(restored.restore_us > 0 && restored.init_us == 0, "{restored:?}");
    assert_eq!(caller.invoke("s1", b"hello").await.unwrap().payload, "hello");
    let took = once(&second, "it has them from there", |shared| shared.fetched == 1).await;
    assert!(took.neighbour_hits > 1 && took.origin_hits == 0, "{took:?}");
    once(&first, "it gave them", |shared| shared.given >= took.neighbour_hits).await;
    // What is published now is offered to whoever would be asked for it.
    let before = own(&second).len();
    let (maker, offered) = prepared(&first, "offered").await;
    publish(&maker, &offered, &origin).await;
    until("what it was offered is kept", async || (own(&second).len() > before).then_some(())).await;
    lose();
    let (caller, offered) = prepared(&second, "offered").await;
    assert!(caller.create("s2", &offered).await.unwrap().restore_us > 0);
    // A neighbour that is gone costs its chunks: the start boots.
    first.agent.kill();
    let (caller, late) = prepared(&second, "late").await;
    assert_eq!(caller.create("s3", &late).await.unwrap().restore_us, 0);
    assert_eq!(caller.invoke("s3", b"hello").await.unwrap().payload, "hello");
    // It is back elsewhere: the next list says where.
    first.restart_agent();
    introduce(&[&first, &second], 8);
    until("the next list", async || (second.control.last_heartbeat().1.neighbours == 8).then_some(())).await;
}

/// The pager has no network: what a neighbour alone has comes through the agent. A neighbour that is gone is no end of who runs, and of
/// no start.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_neighbour_alone_has_is_started_page_by_page() {
    if !Path::new("/dev/userfaultfd").exists() {
        println!("warren-skipped: worker: no /dev/userfaultfd");
        return;
    }
    let origin = Origin::new();
    let flag = origin.flag();
    let mut first = Rig::start(&["--snapshots-mib=64", "--no-pager", &flag]).await;
    let second = first.start_beside("h2", &["--snapshots-mib=0", &flag]).await;
    for name in ["echo", "late"] {
        let (caller, function) = prepared(&first, name).await;
        publish(&caller, &function, &origin).await;
    }
    // The first hears of nobody: it offers nothing of what it published to the second.
    second.control.introduce(v1::Neighbours { revision: 7, all: vec![first.as_neighbour()] });
    once(&second, "it knows its neighbour", |shared| shared.neighbours == 1).await;
    origin.files("chunks").iter().for_each(|path| fs::remove_file(path).unwrap());
    let (caller, echo) = prepared(&second, "echo").await;
    let created = caller.create("s1", &echo).await.unwrap();
    assert!(created.restore_us > 0 && created.sandbox.as_ref().unwrap().paged, "{created:?}");
    for payload in [&b"hello"[..], b"", b"l"] {
        assert_eq!(caller.invoke("s1", payload).await.unwrap().payload, payload);
    }
    let took = once(&second, "it has them from there", |shared| shared.neighbour_hits > 1).await;
    assert_eq!((took.origin_hits, took.fetched), (0, 0), "{took:?}");
    first.agent.kill();
    assert_eq!(caller.invoke("s1", b"again").await.unwrap().payload, "again");
    let (caller, late) = prepared(&second, "late").await;
    // One that ran before its pager asked for what nobody has ends by that, and the next is told so.
    let tries = AtomicU32::new(0);
    let booted = until("it boots", async || {
        let id = format!("late-{}", tries.fetch_add(1, Ordering::Relaxed));
        let created = caller.create(&id, &late).await.unwrap();
        (!created.sandbox.unwrap().paged).then_some(id)
    })
    .await;
    assert_eq!(caller.invoke(&booted, b"hello").await.unwrap().payload, "hello");
}

/// Workers of the fleet are given chunks, control and workers of other fleets are not.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_given_chunks() {
    let origin = Origin::new();
    let flags = ["--snapshots-mib=64", "--no-pager", &origin.flag()];
    let first = Rig::start(&flags).await;
    let second = first.start_beside("h2", &flags).await;
    let ask = async |from: &Rig, service| {
        let channel = first.reached_by(from, service).await.map_err(|_| Code::Unauthenticated)?;
        let asked = ChunksClient::new(channel).get(GetRequest { name: vec![7; 32].into() }).await;
        asked.map(drop).map_err(|status| status.code())
    };
    assert_eq!(ask(&second, Service::Agent).await, Err(Code::NotFound));
    assert_eq!(ask(&second, Service::Control).await, Err(Code::PermissionDenied));
    let stranger = Rig::start(&["--snapshots-mib=0"]).await;
    assert_eq!(ask(&stranger, Service::Agent).await, Err(Code::Unauthenticated));
    // A host that shares nothing serves none.
    let channel = stranger.reached_by(&stranger, Service::Agent).await.unwrap();
    let asked = ChunksClient::new(channel).get(GetRequest { name: vec![7; 32].into() }).await;
    assert_eq!(asked.map(drop).map_err(|status| status.code()), Err(Code::Unimplemented));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rots_is_found_and_mended() {
    let origin = Origin::new();
    let flags = ["--snapshots-mib=64", "--no-pager", &origin.flag()];
    let mut rig = Rig::start(&flags).await;
    let (caller, echo) = prepared(&rig, "echo").await;
    publish(&caller, &echo, &origin).await;
    // The origin's copy, mended from the host's.
    let name =
        |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned();
    let (here, chunk) = until("a copy of the host's own", async || {
        let here = own(&rig).pop()?;
        Some(origin.files("chunks").into_iter().find(|there| name(there) == name(&here))?)
            .map(|there| (here, there))
    })
    .await;
    let whole = fs::read(&chunk).unwrap();
    flip(&chunk, |len| len / 2);
    let named = v1::RetainRequest {
        code_digests: vec![echo.code_digest.clone()],
        functions: vec!["echo".into()],
        min_age_ms: 3_600_000,
        ..v1::RetainRequest::default()
    };
    caller.client.clone().retain(named).await.unwrap();
    until("the origin's chunk is whole", async || (fs::read(&chunk).ok()? == whole).then_some(())).await;
    let found = once(&rig, "and counted", |shared| shared.repaired == 1).await;
    assert_eq!(found.lost, 0);
    // The host's copy, mended from the origin's.
    flip(&here, |len| len / 2);
    rig.restart_agent();
    let found = once(&rig, "it is read again", |shared| shared.scrubbed > 0 && shared.repaired > 0).await;
    assert_eq!((found.repaired, found.lost), (1, 0), "{found:?}");
    until("the host's own copy is whole", async || {
        let copies = own(&rig).into_iter().filter(|path| name(path) == name(&here));
        let copies: Vec<_> = copies.map(|path| fs::read(path).is_ok_and(|bytes| bytes == whole)).collect();
        (!copies.is_empty() && copies.iter().all(|is_whole| *is_whole)).then_some(())
    })
    .await;
}
