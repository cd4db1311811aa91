//! What stands between standin and the app and forgets connections without a word: from then on it passes nothing on, and
//! answers nothing or resets whoever still speaks.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// See the module.
pub struct Middlebox {
    address: SocketAddr,
    forgotten: watch::Sender<(u64, Afterwards)>,
    connections: Arc<AtomicUsize>,
    swallowed: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

/// What becomes of bytes on a connection that was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Afterwards {
    Nothing,
    Reset,
}

impl Middlebox {
    pub async fn before(app: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let forgotten = watch::Sender::new((0, Afterwards::Nothing));
        let (connections, swallowed) =
            (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let mut tasks = JoinSet::new();
        let (told, count, bytes) =
            (forgotten.clone(), Arc::clone(&connections), Arc::clone(&swallowed));
        tasks.spawn(async move {
            let mut all = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (told, bytes) = (told.subscribe(), Arc::clone(&bytes));
                all.spawn(pass_on(client, app, told, bytes));
            }
        });
        Self { address, forgotten, connections, swallowed, _tasks: tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All connections that there are now lead nowhere from here on.
    pub fn forget(&self) {
        self.forgotten
            .send_modify(|(times, then)| (*times, *then) = (*times + 1, Afterwards::Nothing));
    }

    /// The same, and whoever speaks on one is reset.
    pub fn forget_and_reset(&self) {
        self.forgotten
            .send_modify(|(times, then)| (*times, *then) = (*times + 1, Afterwards::Reset));
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Bytes that came on connections after they were forgotten.
    pub fn swallowed(&self) -> usize {
        self.swallowed.load(Ordering::SeqCst)
    }
}

async fn pass_on(
    mut client: TcpStream,
    app: SocketAddr,
    mut told: watch::Receiver<(u64, Afterwards)>,
    swallowed: Arc<AtomicUsize>,
) {
    told.mark_unchanged();
    let Ok(mut app) = TcpStream::connect(app).await else { return };
    for stream in [&client, &app] {
        stream.set_nodelay(true).unwrap();
    }
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut app) => return,
        _ = told.changed() => {}
    }
    let then = told.borrow().1;
    // The app is not told either: its end stays open.
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = client.read(&mut buffer).await {
        swallowed.fetch_add(read, Ordering::SeqCst);
        if then == Afterwards::Reset {
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            return;
        }
    }
    app.shutdown().await.ok();
}
