//! What a client's invocation must look like, whatever functions there are.

use crate::{bad_request, is_request_id};
use tonic::Code;
use warren_proto::{
    MAX_PAYLOAD_BYTES,
    error::{Fault, WireError},
    reason,
    v1::InvokeRequest,
};

/// Payload and request id.
pub fn invocation(request: &InvokeRequest) -> Result<(), WireError> {
    if request.payload.len() > MAX_PAYLOAD_BYTES {
        let message = format!(
            "the payload has {} bytes; at most {MAX_PAYLOAD_BYTES} (6 MiB) are taken",
            request.payload.len()
        );
        return Err(WireError::new(Code::InvalidArgument, reason::PAYLOAD_TOO_LARGE, Fault::Caller, message));
    }
    if !is_request_id(&request.request_id) {
        return Err(bad_request("request_id must be at most 64 characters of [A-Za-z0-9-]"));
    }
    Ok(())
}
