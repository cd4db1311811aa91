//! Today's routes, for those who outlive a reload: replay, admin, the watches over upstreams.

use std::sync::Arc;

use tokio::sync::watch;

use super::Routes;

/// Cheap to clone. The request path does not come here: each worker has its own copy of what is current.
#[derive(Clone, Debug)]
pub struct LiveRoutes(Arc<watch::Sender<Arc<Routes>>>);

impl LiveRoutes {
    pub fn new(routes: Arc<Routes>) -> Self {
        Self(Arc::new(watch::Sender::new(routes)))
    }

    /// The routes as they are now. Ask again for the next piece of work.
    pub fn now(&self) -> Arc<Routes> {
        Arc::clone(&self.0.borrow())
    }

    /// Follows them.
    pub fn changes(&self) -> watch::Receiver<Arc<Routes>> {
        self.0.subscribe()
    }

    pub(crate) fn replace(&self, routes: Arc<Routes>) {
        self.0.send_replace(routes);
    }
}
