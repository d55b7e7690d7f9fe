//! Keys of the fleet's snapshots, derived from its secret: nothing but the secret is kept anywhere.

use std::path::Path;
use warren_artefact::SnapshotOf;
use warren_chunks::{LayerKind, Salts, TenantKey, salt::Domain};
use warren_identity::{FleetSecret, IdentityError};

/// Whose functions they are. There is one account today; another one has other keys.
const ACCOUNT: &str = "default";
const TENANT: &str = "warren-agent 2026 tenant key of snapshots";
const SALTS: &str = "warren-agent 2026 salts of chunks";
/// The newest salt of each kind of layer: os, runtime, function.
const EPOCHS: [u32; 3] = [0; 3];

/// What manifests and chunks are sealed with.
#[derive(Debug)]
pub(super) struct Keys {
    tenant: TenantKey,
    salts: Salts,
}

impl Keys {
    /// Of the secret in an identity directory.
    pub(super) fn load(identity: &Path) -> Result<Self, IdentityError> {
        Ok(Self::of(&FleetSecret::load(identity)?))
    }

    fn of(secret: &FleetSecret) -> Self {
        // Salts are the fleet's: who shares a chunk is a matter of the kind of layer, not of the account.
        let tenant = TenantKey::new(*secret.derive(TENANT, ACCOUNT));
        Self { tenant, salts: Salts::new(*secret.derive(SALTS, ""), EPOCHS) }
    }

    /// What manifests are sealed under.
    pub(super) fn tenant(&self) -> TenantKey {
        self.tenant.clone()
    }

    /// What chunks are salted with.
    pub(super) const fn salts(&self) -> &Salts {
        &self.salts
    }

    /// What the chunks of one are: a function's own, or a runtime's.
    pub(super) fn domain(&self, of: &SnapshotOf) -> Domain {
        self.salts.newest(if of.is_runtime() { LayerKind::Runtime } else { LayerKind::Function })
    }
}
