//! A policy that was verified and linked, ready to be instantiated.

use super::bindings;
use super::instance::{Data, Failure};
use super::runtime::Runtime;
use super::trusted;
use crate::decided::{Identity, Kind};
use std::sync::Arc;
use warren_artefact::{Artefact, EnvelopeError, Purpose, VerifyingKey, World};
use wasmtime::component::{Component, Linker};

/// Why a policy is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The artefact is damaged, or not signed by a trusted builder.
    #[error("artefact refused")]
    Artefact(#[from] EnvelopeError),
    /// It was compiled for something else.
    #[error("not a policy: compiled for purpose {}, world {world:?}", purpose.name())]
    NotAPolicy {
        /// What it was compiled for.
        purpose: Purpose,
        /// What it fulfils.
        world: World,
    },
    /// It makes another decision than asked of it.
    #[error("a {} policy cannot decide {}", found.as_str(), wanted.as_str())]
    WrongKind {
        /// What it decides.
        found: Kind,
        /// What it was to decide.
        wanted: Kind,
    },
    /// It was compiled by another release, with other settings or for another CPU, or it imports something.
    #[error("the policy cannot run here")]
    Incompatible(#[source] wasmtime::Error),
    /// It does not get as far as its first decision; its author's fault.
    #[error("the policy fails to start: {0}")]
    Start(String),
}

impl From<Failure> for LoadError {
    fn from(failure: Failure) -> Self {
        Self::Start(failure.to_string())
    }
}

/// A policy, ready to be instantiated. Holding one proves that a trusted builder compiled it and that it imports
/// nothing; not that it answers well.
pub struct Policy {
    pub(crate) runtime: Arc<Runtime>,
    pub(super) linked: Linked,
    identity: Identity,
}

pub(super) enum Linked {
    Packing(bindings::packing::PackingPre<Data>),
    Placement(bindings::placement::PlacementPre<Data>),
    Routing(bindings::routing::RoutingPre<Data>),
}

impl Policy {
    /// Verifies an artefact and links it. `name` is for people.
    pub fn open(
        runtime: &Arc<Runtime>,
        name: &str,
        envelope: Vec<u8>,
        trusted: &[VerifyingKey],
    ) -> Result<Arc<Self>, LoadError> {
        let artefact = Artefact::open(envelope, trusted)?;
        let metadata = artefact.metadata();
        let (purpose, world) = (metadata.purpose, metadata.world);
        if purpose != Purpose::Policy {
            return Err(LoadError::NotAPolicy { purpose, world });
        }
        let component = trusted::component(&runtime.engine, &artefact).map_err(LoadError::Incompatible)?;
        let linked = match world {
            World::Packing => link(&component, bindings::packing::PackingPre::new).map(Linked::Packing),
            World::Placement => {
                link(&component, bindings::placement::PlacementPre::new).map(Linked::Placement)
            }
            World::Routing => link(&component, bindings::routing::RoutingPre::new).map(Linked::Routing),
            World::Preview1 | World::Function => return Err(LoadError::NotAPolicy { purpose, world }),
        };
        let linked = linked.map_err(LoadError::Incompatible)?;
        let identity = Identity { name: name.to_owned(), digest: metadata.source.to_string() };
        Ok(Arc::new(Self { runtime: Arc::clone(runtime), linked, identity }))
    }

    /// Which decision it makes.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.linked {
            Linked::Packing(_) => Kind::Packing,
            Linked::Placement(_) => Kind::Placement,
            Linked::Routing(_) => Kind::Routing,
        }
    }

    /// Its name and digest.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// The linker is empty: a component that imports any function does not link.
fn link<T>(
    component: &Component,
    typed: impl FnOnce(wasmtime::component::InstancePre<Data>) -> wasmtime::Result<T>,
) -> wasmtime::Result<T> {
    typed(Linker::new(component.engine()).instantiate_pre(component)?)
}
