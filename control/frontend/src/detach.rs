//! A call that ends even when nobody waits for its end any more.
//!
//! tonic drops the handler's future when its client goes away. What an invocation holds (an admission slot, a
//! sandbox) must come back when the *worker* has ended it, not before; so a dropped call is finished by a task. As
//! long as the client stays, the call runs in the handler's own task: no hop on the warm path.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

type Call<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Tells a call that its client has gone, so that it need not begin what it has not begun.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientGone(Arc<AtomicBool>);

impl ClientGone {
    /// Whether it has.
    #[must_use]
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs in place; if dropped before its end, goes on in a task.
#[derive(Debug)]
pub(crate) struct Detached<T: Send + 'static> {
    call: Option<Parked<T>>,
    gone: ClientGone,
}

struct Parked<T>(Call<T>);

impl<T> std::fmt::Debug for Parked<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parked")
    }
}

impl<T: Send + 'static> Detached<T> {
    /// The call that this makes.
    pub(crate) fn new<F: Future<Output = T> + Send + 'static>(call: impl FnOnce(ClientGone) -> F) -> Self {
        let gone = ClientGone::default();
        Self { call: Some(Parked(Box::pin(call(gone.clone())))), gone }
    }
}

impl<T: Send + 'static> Future for Detached<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(call) = &mut self.call else { return Poll::Pending };
        let output = std::task::ready!(call.0.as_mut().poll(context));
        self.call = None;
        Poll::Ready(output)
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            self.gone.0.store(true, Ordering::Relaxed);
            runtime.spawn(async move { drop(call.0.await) });
        }
    }
}
