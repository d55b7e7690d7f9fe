//! The first act of a life of control: an epoch of its own, durable before it serves or reads anything else.

use bytes::Bytes;
use warren_store::{Journal, Record, StoreError};

const SUBJECT: &str = "epoch";

/// Appends a new epoch and returns it. A rival that got there first only makes this one higher.
pub(crate) async fn claim(journal: &dyn Journal) -> Result<u64, StoreError> {
    loop {
        let (records, last) = journal.replay(SUBJECT).await?;
        let epoch = records.last().map_or(0, number).saturating_add(1);
        match journal.append(SUBJECT, last, vec![Bytes::copy_from_slice(&epoch.to_be_bytes())]).await {
            Ok(sequence) => {
                // Older epochs say nothing that the newest does not.
                journal.trim(SUBJECT, warren_store::Sequence(sequence.0.saturating_sub(1))).await?;
                return Ok(epoch);
            }
            Err(StoreError::Fenced { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

fn number(record: &Record) -> u64 {
    <[u8; 8]>::try_from(record.value.as_ref()).map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_store::Embedded;

    #[tokio::test]
    async fn grows_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        for expected in 1..=3 {
            // Two at once in one life, then the next life.
            let store = Embedded::open(dir.path()).unwrap();
            let (one, two) = futures::join!(claim(&store), claim(&store));
            let mut epochs = [one.unwrap(), two.unwrap()];
            epochs.sort_unstable();
            assert_eq!(epochs, [expected * 2 - 1, expected * 2]);
            store.close().await;
        }
    }
}
