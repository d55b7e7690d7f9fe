//! How a birth fails.

use super::super::{
    error::CreateError,
    live::Sandbox,
    machine::{Event, State},
};
use crate::{jailer::JailerError, version::BadVersion, vmm::ChannelError};

pub(super) fn moved(sandbox: &Sandbox, event: Event) -> Result<(), CreateError> {
    sandbox.apply(event).map(|_| ()).map_err(|_| destroyed(sandbox))
}

pub(super) fn destroyed(sandbox: &Sandbox) -> CreateError {
    match sandbox.state() {
        State::Dead(cause) => CreateError::Destroyed(cause.to_string()),
        state => CreateError::Destroyed(state.on_wire().as_str_name().to_owned()),
    }
}

pub(super) fn not_up(error: ChannelError) -> CreateError {
    CreateError::Load { failure: error.into(), last_words: String::new() }
}

impl CreateError {
    /// Called once the sandbox is reclaimed, so that the words are the last ones.
    pub(super) fn with_last_words(mut self, sandbox: &Sandbox) -> Self {
        if let Self::Load { last_words, .. } = &mut self {
            let exit = sandbox.gone.borrow().clone().unwrap_or_default();
            *last_words = format!("{exit}; its log: {}", sandbox.vmm_log.text());
        }
        self
    }

    pub(super) const fn is_jailer_gone(&self) -> bool {
        matches!(self, Self::Jailer(JailerError::Unreachable { .. }))
    }
}

impl From<BadVersion> for CreateError {
    fn from(error: BadVersion) -> Self {
        Self::Prepare(error.into())
    }
}
