//! Hosts that an operator has taken out of service: durable, so that neither they nor control forget it.

use bytes::Bytes;
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::Mutex;
use warren_store::{Expect, Registry, StoreError};

const PREFIX: &str = "drained-host/";

/// The drained hosts.
pub struct Drains {
    registry: Arc<dyn Registry>,
    /// One change at a time: look, then write.
    changing: Mutex<()>,
}

impl std::fmt::Debug for Drains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Drains")
    }
}

impl Drains {
    /// Over this registry.
    #[must_use]
    pub fn new(registry: Arc<dyn Registry>) -> Self {
        Self { registry, changing: Mutex::new(()) }
    }

    /// All of them.
    pub async fn load(&self) -> Result<BTreeSet<Arc<str>>, StoreError> {
        let all = self.registry.list(PREFIX).await?;
        Ok(all.into_iter().filter_map(|(key, _)| Some(key.strip_prefix(PREFIX)?.into())).collect())
    }

    /// Drained, or back in service. Durable when it returns.
    pub(crate) async fn set(&self, host: &str, drained: bool) -> Result<(), StoreError> {
        let key = format!("{PREFIX}{host}");
        let _changing = self.changing.lock().await;
        match (self.registry.get(&key).await?, drained) {
            (None, true) => self.registry.put(&key, Expect::Absent, Bytes::new()).await.map(drop),
            (Some(entry), false) => self.registry.delete(&key, entry.revision).await,
            _ => Ok(()),
        }
    }
}
