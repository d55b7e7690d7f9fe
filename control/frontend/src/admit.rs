//! Admission: the strict concurrency limits, and what clients are told about them.

use crate::{
    Frontend,
    catalog::{Catalog, FunctionEntry},
};
use std::{sync::Arc, time::Duration};
use tonic::Code;
use warren_counting::{Limits, Refused, Ticket};
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::FunctionVersion,
};
use warren_validation::bad_request;

/// When a throttled client should try again. Executions of most functions end within it.
const RETRY_AFTER: Duration = Duration::from_millis(250);

impl Frontend {
    /// Takes a slot for one invocation.
    pub(crate) async fn admit(&self, name: &Arc<str>, reserved: bool) -> Result<Ticket, WireError> {
        self.admission.admit(name, reserved).await.map_err(|refused| refusal(&refused))
    }

    /// The limits that the functions' settings make, with one function as it shall be.
    pub(crate) fn check_reservation(&self, spec: &FunctionVersion) -> Result<(), WireError> {
        let account = self.counting.limits().account;
        let others =
            limits(&self.catalog, account).reserved.into_iter().filter(|(name, _)| **name != *spec.name);
        let others = others.fold(0_u32, |sum, (_, some)| sum.saturating_add(some));
        let wanted = reserved_of(spec).unwrap_or(0);
        if others.saturating_add(wanted) <= account {
            return Ok(());
        }
        let left = account.saturating_sub(others);
        let message =
            format!("reserved_concurrency is {wanted}, but only {left} of the account's {account} are left");
        Err(bad_request(message))
    }

    /// Brings the leader in step with the catalog.
    pub(crate) fn apply_limits(&self) {
        let account = self.counting.limits().account;
        self.counting.set_limits(limits(&self.catalog, account));
    }
}

/// The limits that the functions' newest settings make.
#[must_use]
pub fn limits(catalog: &Catalog, account: u32) -> Limits {
    let of =
        |entry: Arc<FunctionEntry>| Some((Arc::clone(&entry.latest.name), reserved_of(&entry.latest.spec)?));
    Limits { account, reserved: catalog.all().into_iter().filter_map(of).collect() }
}

pub(crate) fn reserved_of(spec: &FunctionVersion) -> Option<u32> {
    spec.limits.as_ref()?.reserved_concurrency
}

fn refusal(refused: &Refused) -> WireError {
    let message = refused.to_string();
    let throttle = |reason| {
        WireError::new(Code::ResourceExhausted, reason, Fault::Throttle, message.clone())
            .retryable(Some(RETRY_AFTER))
    };
    match refused {
        Refused::Account { .. } => throttle(reason::ACCOUNT_CONCURRENCY),
        Refused::Function { .. } => throttle(reason::FUNCTION_CONCURRENCY),
        Refused::Store(_) => {
            WireError::new(Code::Unavailable, reason::STORE_FAILED, Fault::System, message).retryable(None)
        }
    }
}
