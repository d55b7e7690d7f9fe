//! The services clients call, each behind the same door.
//!
//! The token is checked before a request's body is read, so nobody without one has anything decoded or buffered.

use crate::{Frontend, admin::Admin, functions::Functions, invoke::Invokes};
use std::sync::Arc;
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
};
use warren_identity::{Gate, require_client};
use warren_proto::{
    MAX_MESSAGE_BYTES,
    v1::{
        admin_service_server::AdminServiceServer, function_service_server::FunctionServiceServer,
        invoke_service_server::InvokeServiceServer,
    },
};

/// Lets clients in who have a token.
#[derive(Clone, Debug)]
pub struct Authenticate(Arc<Gate>);

impl Interceptor for Authenticate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        require_client(&self.0, &request)?;
        Ok(request)
    }
}

/// What a server adds.
#[derive(Debug)]
pub struct Services {
    /// Invocations.
    pub invoke: InterceptedService<InvokeServiceServer<Invokes>, Authenticate>,
    /// Deploys and logs.
    pub functions: InterceptedService<FunctionServiceServer<Functions>, Authenticate>,
    /// What operators see.
    pub admin: InterceptedService<AdminServiceServer<Admin>, Authenticate>,
}

/// The services over this frontend.
#[must_use]
pub fn services(frontend: &Arc<Frontend>) -> Services {
    let door = || Authenticate(Arc::clone(&frontend.gate));
    let invoke = InvokeServiceServer::new(Invokes(Arc::clone(frontend)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let functions = FunctionServiceServer::new(Functions(Arc::clone(frontend)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let admin = AdminServiceServer::new(Admin(Arc::clone(frontend)));
    Services {
        invoke: InterceptedService::new(invoke, door()),
        functions: InterceptedService::new(functions, door()),
        admin: InterceptedService::new(admin, door()),
    }
}
