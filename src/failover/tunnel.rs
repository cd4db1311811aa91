//! After a 101: bytes both ways between client and app, until one of them ends it or the drain does.

use std::rc::Rc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use crate::{
    listener::Drain,
    upstream::{Places, Tunnel},
};

/// Joins the two sides in a task of their own: the HTTP connection is over on both.
pub(super) fn begin(client: OnUpgrade, app: Tunnel, places: Places, drain: &Rc<Drain>) {
    let drain = Rc::clone(drain);
    spawn(async move {
        let _inside = (drain.enter(), places);
        drain.unless_begun(join(client, app)).await;
    });
}

async fn join(client: OnUpgrade, app: Tunnel) {
    let Tunnel { stream: mut app, first } = app;
    let Ok(client) = client.await else { return };
    let mut client = TokioIo::new(client);
    if client.write_all(&first).await.is_err() {
        return;
    }
    // An error here is one side leaving: the other learns it by its connection's end.
    tokio::io::copy_bidirectional(&mut client, &mut app).await.ok();
}

#[expect(clippy::disallowed_methods, reason = "a tunnel outlives its exchange; the drain ends it")]
fn spawn(future: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(future);
}
