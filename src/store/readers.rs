//! A few read-only connections, used on blocking threads: nobody's runtime waits for a disk.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Semaphore;

use super::{StoreError, sqlite::Reader};

#[derive(Debug)]
pub(super) struct Readers {
    /// None: there is no store, and everything that is read is empty.
    path: Option<PathBuf>,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Idle>>,
}

#[derive(Debug, Default)]
struct Idle {
    readers: Vec<Reader>,
    /// Grows when all readers must be opened anew.
    generation: u64,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: Some(path.to_owned()),
            permits: Arc::new(Semaphore::new(MOST)),
            idle: Arc::default(),
        }
    }

    pub(super) fn none() -> Self {
        Self { path: None, permits: Arc::new(Semaphore::new(0)), idle: Arc::default() }
    }

    /// Runs `read` with a reader of its own, away from the runtime's threads.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(path) = self.path.clone() else { return Err(StoreError::NotFound) };
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let idle = Arc::clone(&self.idle);
        let run = move || {
            let _permit = permit;
            let (reader, generation) = {
                let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
                (idle.readers.pop(), idle.generation)
            };
            let reader = match reader {
                Some(reader) => reader,
                None => Reader::open(&path)?,
            };
            let result = read(&reader);
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.generation == generation {
                idle.readers.push(reader);
            }
            result
        };
        match tokio::task::spawn_blocking(run).await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Failed(format!("a read did not end: {error}"))),
        }
    }

    /// Like `read`, for what takes long and must see the disk: nobody else waits for it, and nothing is remembered.
    pub(super) async fn read_apart<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(path) = self.path.clone() else { return Err(StoreError::NotFound) };
        match tokio::task::spawn_blocking(move || read(&mut Reader::open(&path)?)).await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Failed(format!("a read did not end: {error}"))),
        }
    }

    /// Opens all of them anew, after a failure.
    pub(super) fn renew(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.generation += 1;
        idle.readers.clear();
    }
}

const MOST: usize = 4;
