//! What only the catalog can say of a request: whether there is such a function, such a version.

use crate::catalog::{Catalog, FunctionEntry, Version};
use std::sync::Arc;
use tonic::Code;
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::InvokeRequest,
};
use warren_validation::{clip, invoke};

/// There is no such function.
pub(crate) fn no_such_function(name: &str) -> WireError {
    let message = format!("no function {:?}; `warren fn ls` lists them", clip(name));
    WireError::new(Code::NotFound, reason::NO_SUCH_FUNCTION, Fault::Caller, message)
}

/// Checks an invocation, and finds what it is for.
pub(crate) fn invocation(
    catalog: &Catalog,
    request: &InvokeRequest,
) -> Result<(Arc<FunctionEntry>, Arc<Version>), WireError> {
    invoke::invocation(request)?;
    let entry = catalog.get(&request.function).ok_or_else(|| no_such_function(&request.function))?;
    if request.version == 0 {
        let latest = Arc::clone(&entry.latest);
        return Ok((entry, latest));
    }
    let version = entry.versions.get(&request.version).cloned().ok_or_else(|| {
        let message = format!(
            "function {:?} has no version {}; its newest is {}",
            request.function, request.version, entry.latest.spec.version
        );
        WireError::new(Code::NotFound, reason::NO_SUCH_VERSION, Fault::Caller, message)
    })?;
    Ok((entry, version))
}
