//! The redb tables and each operation on them, inside a transaction that somebody else commits.

use crate::{Entry, Expect, Record, Revision, Sequence, StoreError};
use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

const REGISTRY: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("registry");
const JOURNAL: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("journal");
const LAST: TableDefinition<'_, &str, u64> = TableDefinition::new("last");
/// The key of `LAST` that counts registry revisions; journal subjects are prefixed, so none can be this.
const REVISIONS: &str = "revisions";

pub(crate) fn create(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_write()?;
    transaction.open_table(REGISTRY)?;
    transaction.open_table(JOURNAL)?;
    transaction.open_table(LAST)?;
    transaction.commit()?;
    Ok(())
}

pub(crate) fn get(database: &Database, key: &str) -> Result<Option<Entry>, StoreError> {
    let table = database.begin_read()?.open_table(REGISTRY)?;
    Ok(table.get(key)?.map(|found| entry(found.value())))
}

pub(crate) fn list(database: &Database, prefix: &str) -> Result<Vec<(String, Entry)>, StoreError> {
    let table = database.begin_read()?.open_table(REGISTRY)?;
    let mut found = Vec::new();
    for row in table.range(prefix..)? {
        let (key, value) = row?;
        if !key.value().starts_with(prefix) {
            break;
        }
        found.push((key.value().to_owned(), entry(value.value())));
    }
    Ok(found)
}

pub(crate) fn replay(database: &Database, subject: &str) -> Result<(Vec<Record>, Sequence), StoreError> {
    let transaction = database.begin_read()?;
    let last = transaction.open_table(LAST)?.get(last_key(subject).as_str())?.map_or(0, |last| last.value());
    let table = transaction.open_table(JOURNAL)?;
    let mut records = Vec::new();
    for row in table.range((subject, 0)..=(subject, u64::MAX))? {
        let (key, value) = row?;
        records
            .push(Record { sequence: Sequence(key.value().1), value: Bytes::copy_from_slice(value.value()) });
    }
    Ok((records, Sequence(last)))
}

pub(crate) fn put(
    transaction: &WriteTransaction,
    key: &str,
    expect: Expect,
    value: &[u8],
) -> Result<Revision, StoreError> {
    let mut table = transaction.open_table(REGISTRY)?;
    let current = table.get(key)?.map(|found| Revision(found.value().0));
    let expected = match expect {
        Expect::Absent => None,
        Expect::At(revision) => Some(revision),
    };
    if current != expected {
        return Err(StoreError::Conflict { current });
    }
    let mut last = transaction.open_table(LAST)?;
    let revision = last.get(REVISIONS)?.map_or(0, |last| last.value()).saturating_add(1);
    last.insert(REVISIONS, revision)?;
    table.insert(key, (revision, value))?;
    Ok(Revision(revision))
}

pub(crate) fn delete(
    transaction: &WriteTransaction,
    key: &str,
    revision: Revision,
) -> Result<(), StoreError> {
    let mut table = transaction.open_table(REGISTRY)?;
    let current = table.get(key)?.map(|found| Revision(found.value().0));
    if current != Some(revision) {
        return Err(StoreError::Conflict { current });
    }
    table.remove(key)?;
    Ok(())
}

pub(crate) fn append(
    transaction: &WriteTransaction,
    subject: &str,
    expected: Sequence,
    records: &[Bytes],
) -> Result<Sequence, StoreError> {
    let key = last_key(subject);
    let mut lasts = transaction.open_table(LAST)?;
    let mut last = lasts.get(key.as_str())?.map_or(0, |last| last.value());
    if last != expected.0 {
        return Err(StoreError::Fenced { current: Sequence(last) });
    }
    let mut table = transaction.open_table(JOURNAL)?;
    for record in records {
        last = last.saturating_add(1);
        table.insert((subject, last), record.as_ref())?;
    }
    lasts.insert(key.as_str(), last)?;
    Ok(Sequence(last))
}

pub(crate) fn trim(transaction: &WriteTransaction, subject: &str, up_to: Sequence) -> Result<(), StoreError> {
    let mut table = transaction.open_table(JOURNAL)?;
    table.retain_in((subject, 0)..=(subject, up_to.0), |_, _| false)?;
    Ok(())
}

fn entry((revision, value): (u64, &[u8])) -> Entry {
    Entry { revision: Revision(revision), value: Bytes::copy_from_slice(value) }
}

fn last_key(subject: &str) -> String {
    format!("journal/{subject}")
}
