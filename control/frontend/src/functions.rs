//! `FunctionService`: deploys, listings and logs.

use crate::{Frontend, catalog::FunctionEntry, logs, publish::Watcher, validate};
use std::{pin::Pin, sync::Arc};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};
use warren_proto::{
    error::WireError,
    v1::{
        CreateFunctionRequest, DeleteFunctionRequest, DeleteFunctionResponse, DeployEvent, Function,
        GetFunctionRequest, ListFunctionsRequest, ListFunctionsResponse, LogLine, LogsRequest,
        UpdateFunctionRequest, deploy_event::Event, function_service_server,
    },
};

const DEFAULT_PAGE: usize = 1000;
/// More than a deploy has events.
const EVENTS: usize = 8;

/// What a deploy is at, then its end.
type Deploying = Pin<Box<dyn Stream<Item = Result<DeployEvent, Status>> + Send>>;

/// Serves deploys.
#[derive(Clone, Debug)]
pub struct Functions(pub(crate) Arc<Frontend>);

#[tonic::async_trait]
impl function_service_server::FunctionService for Functions {
    async fn create_function(
        &self,
        request: Request<CreateFunctionRequest>,
    ) -> Result<Response<Function>, Status> {
        let made = self.0.create_function(request.into_inner(), &Watcher::default()).await?;
        Ok(Response::new(made.to_wire()))
    }

    async fn update_function(
        &self,
        request: Request<UpdateFunctionRequest>,
    ) -> Result<Response<Function>, Status> {
        let made = self.0.update_function(request.into_inner(), &Watcher::default()).await?;
        Ok(Response::new(made.to_wire()))
    }

    type CreateFunctionStreamStream = Deploying;

    async fn create_function_stream(
        &self,
        request: Request<CreateFunctionRequest>,
    ) -> Result<Response<Deploying>, Status> {
        let frontend = Arc::clone(&self.0);
        Ok(Response::new(watched(async move |watcher| {
            frontend.create_function(request.into_inner(), &watcher).await
        })))
    }

    type UpdateFunctionStreamStream = Deploying;

    async fn update_function_stream(
        &self,
        request: Request<UpdateFunctionRequest>,
    ) -> Result<Response<Deploying>, Status> {
        let frontend = Arc::clone(&self.0);
        Ok(Response::new(watched(async move |watcher| {
            frontend.update_function(request.into_inner(), &watcher).await
        })))
    }

    async fn get_function(&self, request: Request<GetFunctionRequest>) -> Result<Response<Function>, Status> {
        let name = &request.get_ref().name;
        let found = self.0.catalog.get(name).ok_or_else(|| validate::no_such_function(name))?;
        Ok(Response::new(found.to_wire()))
    }

    async fn list_functions(
        &self,
        request: Request<ListFunctionsRequest>,
    ) -> Result<Response<ListFunctionsResponse>, Status> {
        let request = request.into_inner();
        let size = if request.page_size == 0 { DEFAULT_PAGE } else { request.page_size as usize };
        let after = |entry: &Arc<FunctionEntry>| *entry.latest.name > *request.page_token;
        let mut rest = self.0.catalog.all().into_iter().filter(after);
        let functions: Vec<Function> = rest.by_ref().take(size).map(|entry| entry.to_wire()).collect();
        let more = rest.next().is_some();
        let last = functions.last().and_then(|function| Some(function.latest.as_ref()?.name.clone()));
        let next_page_token = last.filter(|_| more).unwrap_or_default();
        Ok(Response::new(ListFunctionsResponse { functions, next_page_token }))
    }

    async fn delete_function(
        &self,
        request: Request<DeleteFunctionRequest>,
    ) -> Result<Response<DeleteFunctionResponse>, Status> {
        let request = request.into_inner();
        self.0.delete_function(&request.name, request.expected_revision).await?;
        Ok(Response::new(DeleteFunctionResponse {}))
    }

    type LogsStream = Pin<Box<dyn Stream<Item = Result<LogLine, Status>> + Send>>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        Ok(Response::new(Box::pin(logs::merged(&self.0, &request).await?)))
    }
}

/// A deploy that ends with whoever watches it, as one does that nobody watches.
fn watched<F>(deploy: impl FnOnce(Watcher) -> F) -> Deploying
where
    F: Future<Output = Result<Arc<FunctionEntry>, WireError>> + Send + 'static,
{
    let (events, watched) = mpsc::channel(EVENTS);
    let deploying = deploy(Watcher::new(events.clone()));
    tokio::spawn(async move {
        tokio::select! {
            ended = deploying => {
                let end = ended.map(|entry| DeployEvent { event: Some(Event::Done(entry.to_wire())) });
                let _ = events.send(end.map_err(Status::from)).await;
            }
            () = events.closed() => {}
        }
    });
    Box::pin(ReceiverStream::new(watched))
}
