//! Something that is made from files, and made again when their content changes. A bad change is refused and told; what
//! was made before stays.
//!
//! The content is compared, not the time of the file, and no watch of the file system is used: the swapped symbolic link
//! of a Kubernetes volume, a file on a network and one that is renamed into place are all the same that way.

use std::{
    collections::BTreeMap,
    fmt,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};

use super::{TlsFault, expiry};
use crate::time::UnixMillis;

/// See the module.
pub struct FromFiles<T> {
    section: String,
    files: Vec<PathBuf>,
    make: Box<Make<T>>,
    current: ArcSwap<T>,
    state: Mutex<State>,
}

type Make<T> = dyn Fn(&Contents) -> Result<Made<T>, TlsFault> + Send + Sync;

/// What came out, and the certificates in it.
pub(super) struct Made<T> {
    pub(super) value: T,
    pub(super) certificates: Vec<CertificateStatus>,
}

struct State {
    loaded: Hash,
    loaded_at: UnixMillis,
    certificates: Vec<CertificateStatus>,
    /// Content that differs and was seen once: it may be half of a change.
    settling: Option<Hash>,
    refused: Option<(Hash, String)>,
}

/// What is known of one TLS section, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsStatus {
    /// `listen.tls` or `upstream.NAME.tls`.
    pub section: String,
    pub certificates: Vec<CertificateStatus>,
    pub loaded_at: UnixMillis,
    /// Why what is in the files now is not used.
    pub fault: Option<String>,
}

/// One certificate of ours, or an authority that we trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    pub file: PathBuf,
    /// The first end among those in the file; none where it cannot be read.
    pub not_after: Option<UnixMillis>,
}

/// What a look at the files came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    Same,
    New,
    /// Told once for each new content.
    Refused(String),
}

type Hash = [u8; 32];

impl<T> FromFiles<T> {
    /// Reads the files for the first time.
    pub(super) fn load(
        section: String,
        files: Vec<PathBuf>,
        make: impl Fn(&Contents) -> Result<Made<T>, TlsFault> + Send + Sync + 'static,
    ) -> Result<Self, TlsFault> {
        let contents = Contents::read(&files)?;
        let Made { value, certificates } = make(&contents)?;
        let state = State {
            loaded: contents.hash(),
            loaded_at: UnixMillis::now(),
            certificates,
            settling: None,
            refused: None,
        };
        Ok(Self {
            section,
            files,
            make: Box::new(make),
            current: ArcSwap::from_pointee(value),
            state: Mutex::new(state),
        })
    }

    /// What is good now. Whoever took it before keeps what it has.
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    pub fn section(&self) -> &str {
        &self.section
    }

    /// Looks at the files. A change is taken up once it has been the same for two looks: certificate and key are two
    /// files, and between them they do not fit.
    pub fn look(&self) -> Reloaded {
        let contents = Contents::read(&self.files);
        let hash = contents.as_ref().map_or_else(of_fault, Contents::hash);
        let mut state = self.state();
        if hash == state.loaded {
            state.settling = None;
            state.refused = None;
            return Reloaded::Same;
        }
        if state.refused.as_ref().is_some_and(|(refused, _)| *refused == hash) {
            return Reloaded::Same;
        }
        if state.settling.replace(hash) != Some(hash) {
            return Reloaded::Same;
        }
        state.settling = None;
        match contents.and_then(|contents| (self.make)(&contents)) {
            Ok(made) => {
                self.current.store(Arc::new(made.value));
                state.loaded = hash;
                state.loaded_at = UnixMillis::now();
                state.certificates = made.certificates;
                state.refused = None;
                Reloaded::New
            }
            Err(fault) => {
                state.refused = Some((hash, fault.to_string()));
                Reloaded::Refused(fault.to_string())
            }
        }
    }

    pub fn status(&self) -> TlsStatus {
        let state = self.state();
        TlsStatus {
            section: self.section.clone(),
            certificates: state.certificates.clone(),
            loaded_at: state.loaded_at,
            fault: state.refused.as_ref().map(|(_, fault)| fault.clone()),
        }
    }

    #[cfg(test)]
    pub(super) fn replace(&self, value: T) {
        self.current.store(Arc::new(value));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without what is in the files.
impl<T> fmt::Debug for FromFiles<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFiles").field("section", &self.section).finish_non_exhaustive()
    }
}

/// What is in a few files, by path.
pub(super) struct Contents(BTreeMap<PathBuf, Vec<u8>>);

impl Contents {
    pub(super) fn read(files: &[PathBuf]) -> Result<Self, TlsFault> {
        let mut all = BTreeMap::new();
        for path in files {
            let fault = |cause: String| TlsFault::Read { path: path.clone(), cause };
            let mut bytes = Vec::new();
            std::fs::File::open(path)
                .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
                .map_err(|error| fault(error.to_string()))?;
            if bytes.len() as u64 > LARGEST {
                return Err(fault(format!("it is larger than {LARGEST} bytes")));
            }
            all.insert(path.clone(), bytes);
        }
        Ok(Self(all))
    }

    /// The certificates in a file; at least one.
    pub(super) fn certificates(
        &self,
        path: &Path,
    ) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
        let fault = |what: String| TlsFault::content(path, what);
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.bytes(path)).collect();
        let all = all.map_err(|error| fault(format!("is not PEM: {error}")))?;
        if all.is_empty() {
            return Err(fault("has no `BEGIN CERTIFICATE`".to_owned()));
        }
        Ok(all)
    }

    /// The first private key in a file. The fault says nothing of what else is there.
    pub(super) fn key(&self, path: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
        PrivateKeyDer::from_pem_slice(self.bytes(path)).map_err(|_| {
            TlsFault::content(path, "has no `BEGIN PRIVATE KEY` (one without a password)")
        })
    }

    fn bytes(&self, path: &Path) -> &[u8] {
        self.0.get(path).map_or(&[], Vec::as_slice)
    }

    fn hash(&self) -> Hash {
        let mut hash = Sha256::new();
        for bytes in self.0.values() {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
        hash.finalize().into()
    }
}

impl CertificateStatus {
    pub(super) fn of(file: &Path, certificates: &[CertificateDer<'_>]) -> Self {
        let not_after = certificates.iter().filter_map(|one| expiry::not_after(one)).min();
        Self { file: file.to_owned(), not_after }
    }
}

fn of_fault(fault: &TlsFault) -> Hash {
    Sha256::digest(fault.to_string()).into()
}

/// A bundle of all public authorities is a quarter of this.
const LARGEST: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        folder: tempfile::TempDir,
        watched: FromFiles<String>,
    }

    impl Files {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let paths: Vec<_> =
                ["cert", "key"].iter().map(|name| folder.path().join(name)).collect();
            paths.iter().for_each(|path| std::fs::write(path, "1").unwrap());
            let of = paths.clone();
            let watched = FromFiles::load("listen.tls".into(), paths, move |contents| {
                let [cert, key] = [0, 1].map(|at| contents.bytes(&of[at]).to_vec());
                if cert != key {
                    return Err(TlsFault::Other("they do not fit".into()));
                }
                let value = String::from_utf8(cert).unwrap();
                Ok(Made { value, certificates: Vec::new() })
            });
            Self { folder, watched: watched.unwrap() }
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.folder.path().join(name), text).unwrap();
        }

        fn look(&self) -> (Reloaded, String) {
            (self.watched.look(), self.watched.current().to_string())
        }
    }

    #[test]
    fn a_change_is_taken_up_when_it_has_settled() {
        let files = Files::new();
        assert_eq!(files.look(), (Reloaded::Same, "1".into()));
        files.write("cert", "2");
        assert_eq!(files.look(), (Reloaded::Same, "1".into()), "half of it");
        files.write("key", "2");
        assert_eq!(files.look(), (Reloaded::Same, "1".into()), "seen once");
        assert_eq!(files.look(), (Reloaded::New, "2".into()));
        assert_eq!(files.look(), (Reloaded::Same, "2".into()));
    }

    #[test]
    fn a_bad_change_is_told_once_and_changes_nothing() {
        let files = Files::new();
        files.write("cert", "bad");
        files.look();
        assert_eq!(files.look(), (Reloaded::Refused("they do not fit".into()), "1".into()));
        assert_eq!(files.look(), (Reloaded::Same, "1".into()));
        assert_eq!(files.watched.status().fault.as_deref(), Some("they do not fit"));
        files.write("cert", "1");
        files.look();
        assert_eq!(files.watched.status().fault, None, "the old one is back");
    }

    #[test]
    fn a_file_that_is_gone_is_a_bad_change() {
        let files = Files::new();
        std::fs::remove_file(files.folder.path().join("key")).unwrap();
        files.look();
        let (Reloaded::Refused(why), kept) = files.look() else { panic!("not told") };
        assert!(why.contains("cannot read") && kept == "1", "{why}");
    }
}
