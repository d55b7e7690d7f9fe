//! What of shared snapshots goes with its function, and what stays because another's is a diff on it.

use crate::{
    rig::{Caller, module, until, version},
    shared::{Two, copy, flip, publish},
};
use std::{
    fs::File,
    time::{Duration, SystemTime},
};
use warren_proto::v1::{self, OriginCopy, Snapshot};

/// What no function names any more is collected, in two steps, and what one names is not.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_of_the_origin_goes_and_the_rest_can_be_used() {
    let two = Two::start().await;
    let (kept, gone) = (two.publish("kept").await, two.publish("gone").await);
    let before = two.origin.files("chunks").len();
    let digest = blake3::hash(&two.code).to_hex().to_string();
    let retain = async |functions: &[&str]| {
        let request = v1::RetainRequest {
            code_digests: vec![digest.clone()],
            task_digests: Vec::new(),
            functions: functions.iter().map(ToString::to_string).collect(),
            min_age_ms: 3_600_000,
        };
        two.makes.client.clone().retain(request).await.unwrap();
    };
    // All of it is young: it stays.
    let turns = || {
        let others = two.origin.files("entries").into_iter().filter(|path| *path != kept && *path != gone);
        others.collect::<Vec<_>>()
    };
    retain(&["kept"]).await;
    // To collect, and to scrub.
    let turns = until("somebody's turns", async || Some(turns()).filter(|turns| turns.len() == 2)).await;
    assert!(gone.exists());
    let age = |area: &str| {
        let files = two.origin.files(area).into_iter().chain(turns.clone());
        let then = SystemTime::now() - Duration::from_hours(72);
        // A collection may be under way.
        let there = files.filter_map(|path| File::options().write(true).open(path).ok());
        there.for_each(|file| file.set_modified(then).unwrap());
    };
    age("entries");
    age("chunks");
    retain(&["kept"]).await;
    until("what is not named is retired", async || (!two.origin.files("retired").is_empty()).then_some(()))
        .await;
    assert!(kept.exists() && !gone.exists());
    until("and deleted", async || {
        age("retired");
        retain(&["kept"]).await;
        two.origin.files("retired").is_empty().then_some(())
    })
    .await;
    assert!(two.origin.files("chunks").len() < before);
    let function = two.prepare(&two.takes, "kept").await;
    assert!(two.takes.create("s1", &function).await.unwrap().restore_us > 0);
    assert_eq!(two.takes.invoke("s1", b"hello").await.unwrap().payload, "hello");
}

/// Of one runtime only the first memory is in the origin whole: the next ones are diffs on it, which start like any other, outlive their
/// base's function, and are made anew where the base is lost.
#[tokio::test(flavor = "multi_thread")]
async fn functions_of_one_runtime_are_told_by_how_they_differ() {
    let two = Two::start().await;
    let publish_variant = async |caller: &Caller, name: &str, variant: u32| {
        let code = module::obedient_as(variant);
        let function = version(name, &code, |_| ());
        caller.prepare(&function, &code, b"").await.unwrap();
        publish(caller, &function, &two.origin).await;
        (copy(caller, name, OriginCopy::There).await.unwrap(), function, code)
    };
    let (whole, base, base_code) = publish_variant(&two.makes, "base", 1).await;
    let (diff, next, code) = publish_variant(&two.makes, "next", 2).await;
    assert!(diff.memory_bytes > whole.memory_bytes / 2, "{diff:?}");
    let stored = |one: &Snapshot| one.origin_new_bytes + one.origin_shared_bytes;
    assert!(stored(&diff) * 4 < stored(&whole), "{} after {}", stored(&diff), stored(&whole));
    // Another host, which has neither.
    let starts = async |caller: &Caller, id: &str| {
        caller.prepare(&next, &code, b"").await.unwrap();
        let created = caller.create(id, &next).await.unwrap();
        assert_eq!(caller.invoke(id, b"hello").await.unwrap().payload, "hello");
        created.restore_us > 0
    };
    assert!(starts(&two.takes, "s1").await);
    assert_eq!(two.takes.snapshots("next").await[0].memory_digest, diff.memory_digest);
    // The base's function goes, in two collections; what is on it stays whole.
    let age = || {
        let then = SystemTime::now() - Duration::from_hours(72);
        for path in ["entries", "chunks", "retired"].iter().flat_map(|area| two.origin.files(area)) {
            if let Ok(file) = File::options().write(true).open(path) {
                file.set_modified(then).unwrap();
            }
        }
    };
    let entry = two.origin.path().join("entries").join(&whole.key[..2]).join(&whole.key);
    let retain = async || {
        let request = v1::RetainRequest {
            code_digests: vec![next.code_digest.clone()],
            functions: vec!["next".to_owned()],
            min_age_ms: 3_600_000,
            ..v1::RetainRequest::default()
        };
        two.makes.client.clone().retain(request).await.unwrap();
    };
    until("the base's entry is gone", async || {
        age();
        retain().await;
        (!entry.exists()).then_some(())
    })
    .await;
    for _ in 0..3 {
        age();
        retain().await;
    }
    let third = async |name: &str| {
        two.first.start_beside(name, &["--snapshots-mib=64", "--no-pager", &two.origin.flag()]).await
    };
    let (fresh, later) = (third("h3").await, third("h4").await);
    assert!(starts(&Caller::new(&fresh).await, "s1").await);
    // Without its base it is nothing: the start boots.
    two.origin.files("chunks").iter().for_each(|path| flip(path, |len| len / 2));
    assert!(!starts(&Caller::new(&later).await, "s1").await);
    drop((base, base_code));
}
