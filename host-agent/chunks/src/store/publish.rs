//! A manifest is acknowledged when it and everything it names can be read from the origin.
//!
//! The caller makes it a root of garbage collection within the collection's `min_age` of that.

use super::{PutError, Store};
use crate::{
    l3::{Area, OriginError},
    manifest::{
        Manifest,
        sealed::{MAX_MANIFEST_BYTES, ManifestError, seal_manifest},
    },
    name::{Name, TenantKey},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};

/// Looks at the origin at once.
const AT_ONCE: usize = 16;

/// A manifest was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It cannot be sealed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The origin does not have what it names: put that first.
    #[error("the origin does not have {0}, which the manifest names")]
    Missing(Name),
    /// The origin failed.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl From<OriginError> for PublishError {
    fn from(error: OriginError) -> Self {
        Self::Put(error.into())
    }
}

impl Store {
    /// Seals a manifest under a tenant's key and keeps it, after everything it names was seen at the origin.
    pub async fn publish(&self, manifest: &Manifest, key: &TenantKey) -> Result<Name, PublishError> {
        let sealed = seal_manifest(manifest, key)?;
        let base = manifest.parts().base.map(|base| base.name);
        let named = manifest.names().into_iter().chain(base);
        stream::iter(named.map(|name| self.see(name))).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let name = Name::of(&sealed);
        self.put(name, sealed).await?;
        Ok(name)
    }

    /// Sees that it is in service, and young: what a collection has just retired goes back, what is old is put again.
    async fn see(&self, name: Name) -> Result<(), PublishError> {
        match self.origin().held(Area::Live, name).await {
            Ok(held) if self.origin().is_young(&held) => Ok(()),
            Ok(_) => {
                let sealed = self.origin().get(Area::Live, name, MAX_MANIFEST_BYTES).await?;
                self.origin().put(name, sealed).await?;
                Ok(())
            }
            Err(OriginError::Absent) => match self.origin().shift(name, Area::Retired, Area::Live).await {
                Err(OriginError::Absent) => Err(PublishError::Missing(name)),
                done => Ok(done?),
            },
            Err(error) => Err(error.into()),
        }
    }
}
