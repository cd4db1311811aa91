//! Looks at the files of TLS again and again, and tells what became of a change. A bad one is told once; it stays in
//! metrics and on the page.

use std::{sync::Arc, time::Duration};

use crate::{
    router::LiveRoutes,
    time::next_look,
    tls::{Reloaded, server::ServerTls},
};

/// Time between two looks. A change is taken up at the second look that sees it.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Runs until dropped.
pub(super) async fn keep_fresh(listen: Option<Arc<ServerTls>>, routes: LiveRoutes) {
    loop {
        next_look(LOOK_EVERY).await;
        if let Some(tls) = &listen {
            let of_task = Arc::clone(tls);
            tell(tls.section(), look(move || of_task.look()).await);
        }
        for upstream in &routes.now().upstreams {
            if let Some(status) = upstream.tls_status() {
                let of_task = Arc::clone(upstream);
                tell(&status.section, look(move || of_task.look_at_certificates()).await);
            }
        }
    }
}

/// A file system that hangs must not hold up replay, which has this thread, too.
async fn look(look: impl FnOnce() -> Reloaded + Send + 'static) -> Reloaded {
    tokio::task::spawn_blocking(look).await.unwrap_or(Reloaded::Same)
}

fn tell(section: &str, reloaded: Reloaded) {
    match reloaded {
        Reloaded::Same => {}
        Reloaded::New => tracing::info!(section, "certificates read again"),
        Reloaded::Refused(why) => {
            tracing::warn!(
                section,
                why,
                "the changed files of TLS are not used: what was good before stays"
            );
        }
    }
}
