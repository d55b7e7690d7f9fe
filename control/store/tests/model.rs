//! The conformance suite of the traits, as a model: every answer agrees with plain maps, also after each reopening.

#![allow(clippy::unwrap_used, reason = "a model's panics are its report")]

use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tempfile::TempDir;
use warren_store::{Embedded, Expect, Journal, Registry, Revision, Sequence, StoreError};

#[derive(Debug, Default)]
struct Model {
    registry: BTreeMap<String, (u64, Bytes)>,
    revision: u64,
    journal: BTreeMap<String, BTreeMap<u64, Bytes>>,
    last: BTreeMap<String, u64>,
}

#[derive(Clone, Debug)]
enum Step {
    /// Writes at the right revision, or off by so many.
    Put {
        key: u8,
        off_by: u64,
        value: Vec<u8>,
    },
    Create {
        key: u8,
        value: Vec<u8>,
    },
    Delete {
        key: u8,
        off_by: u64,
    },
    Append {
        subject: u8,
        off_by: u64,
        records: Vec<Vec<u8>>,
    },
    Trim {
        subject: u8,
        keep: u64,
    },
    Reopen,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..40)
}

fn step() -> impl Strategy<Value = Step> {
    let off = prop_oneof![4 => Just(0_u64), 1 => 1..3_u64];
    prop_oneof![
        4 => (0..6_u8, off.clone(), bytes()).prop_map(|(key, off_by, value)| Step::Put { key, off_by, value }),
        3 => (0..6_u8, bytes()).prop_map(|(key, value)| Step::Create { key, value }),
        2 => (0..6_u8, off.clone()).prop_map(|(key, off_by)| Step::Delete { key, off_by }),
        3 => (0..3_u8, off, proptest::collection::vec(bytes(), 0..4))
            .prop_map(|(subject, off_by, records)| Step::Append { subject, off_by, records }),
        1 => (0..3_u8, 0..4_u64).prop_map(|(subject, keep)| Step::Trim { subject, keep }),
        2 => Just(Step::Reopen),
    ]
}

/// Keys and subjects that are prefixes of each other, so that a range that ends in the wrong place shows.
fn name(at: u8) -> String {
    "a/".repeat(usize::from(at) + 1)
}

async fn agree(store: &Embedded, model: &Model) {
    for key in (0..6).map(name) {
        let expected = model.registry.get(&key).cloned();
        let found = store.get(&key).await.unwrap().map(|entry| (entry.revision.0, entry.value));
        assert_eq!(found, expected, "{key}");
        let listed: Vec<_> = store.list(&key).await.unwrap();
        let listed: Vec<_> =
            listed.into_iter().map(|(key, entry)| (key, (entry.revision.0, entry.value))).collect();
        let expected: Vec<_> =
            model.registry.range(key.clone()..).take_while(|(other, _)| other.starts_with(&key)).collect();
        assert_eq!(listed.iter().map(|(key, value)| (key, value)).collect::<Vec<_>>(), expected);
    }
    for subject in (0..3).map(name) {
        let (records, last) = store.replay(&subject).await.unwrap();
        let records: BTreeMap<u64, Bytes> =
            records.into_iter().map(|record| (record.sequence.0, record.value)).collect();
        assert_eq!(records, model.journal.get(&subject).cloned().unwrap_or_default());
        assert_eq!(last.0, model.last.get(&subject).copied().unwrap_or(0));
    }
}

async fn run(steps: Vec<Step>) {
    let dir = TempDir::new().unwrap();
    let mut store = Embedded::open(dir.path()).unwrap();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Put { key, off_by, value } => {
                let key = name(key);
                let current = model.registry.get(&key).map(|(revision, _)| *revision);
                let expect = Expect::At(Revision(current.unwrap_or(1) + off_by));
                let answer = store.put(&key, expect, value.clone().into()).await;
                put(&mut model, key, current.is_some() && off_by == 0, current, answer, value);
            }
            Step::Create { key, value } => {
                let key = name(key);
                let current = model.registry.get(&key).map(|(revision, _)| *revision);
                let answer = store.put(&key, Expect::Absent, value.clone().into()).await;
                put(&mut model, key, current.is_none(), current, answer, value);
            }
            Step::Delete { key, off_by } => {
                let key = name(key);
                let current = model.registry.get(&key).map(|(revision, _)| *revision);
                let answer = store.delete(&key, Revision(current.unwrap_or(1) + off_by)).await;
                if current.is_some() && off_by == 0 {
                    answer.unwrap();
                    model.registry.remove(&key);
                } else {
                    assert!(
                        matches!(answer, Err(StoreError::Conflict { current: at }) if at.map(|r| r.0) == current)
                    );
                }
            }
            Step::Append { subject, off_by, records } => {
                let subject = name(subject);
                let last = model.last.get(&subject).copied().unwrap_or(0);
                let records: Vec<Bytes> = records.into_iter().map(Bytes::from).collect();
                let answer = store.append(&subject, Sequence(last + off_by), records.clone()).await;
                if off_by == 0 {
                    let kept = model.journal.entry(subject.clone()).or_default();
                    kept.extend(records.into_iter().zip(last + 1..).map(|(record, at)| (at, record)));
                    let end = answer.unwrap().0;
                    assert!(kept.range(end + 1..).next().is_none() && end >= last);
                    model.last.insert(subject, end);
                } else {
                    assert!(matches!(answer, Err(StoreError::Fenced { current }) if current.0 == last));
                }
            }
            Step::Trim { subject, keep } => {
                let subject = name(subject);
                let up_to = model.last.get(&subject).copied().unwrap_or(0).saturating_sub(keep);
                store.trim(&subject, Sequence(up_to)).await.unwrap();
                if let Some(kept) = model.journal.get_mut(&subject) {
                    kept.retain(|at, _| *at > up_to);
                }
            }
            Step::Reopen => {
                store.close().await;
                store = Embedded::open(dir.path()).unwrap();
            }
        }
        agree(&store, &model).await;
    }
}

fn put(
    model: &mut Model,
    key: String,
    fits: bool,
    current: Option<u64>,
    answer: Result<Revision, StoreError>,
    value: Vec<u8>,
) {
    if fits {
        let revision = answer.unwrap().0;
        assert!(revision > model.revision, "a revision repeats");
        model.revision = revision;
        model.registry.insert(key, (revision, value.into()));
    } else {
        assert!(matches!(answer, Err(StoreError::Conflict { current: at }) if at.map(|r| r.0) == current));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn agrees_with_plain_maps(steps in proptest::collection::vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(steps));
    }
}

#[tokio::test]
async fn of_two_writers_at_once_one_wins() {
    let dir = TempDir::new().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    let writers = (0..16_u8).map(|at| store.put("f", Expect::Absent, vec![at].into()));
    let answers = futures::future::join_all(writers).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert!(
        answers.iter().all(|answer| matches!(answer, Ok(_) | Err(StoreError::Conflict { current: Some(_) })))
    );
}

#[tokio::test]
async fn after_closing_every_call_says_so() {
    let dir = TempDir::new().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    store.close().await;
    assert!(matches!(store.get("f").await, Err(StoreError::Closed)));
    assert!(matches!(store.put("f", Expect::Absent, Bytes::new()).await, Err(StoreError::Closed)));
}
