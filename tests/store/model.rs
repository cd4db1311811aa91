//! Random verbs against a simple model of what they promise, with starts in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Append { key: u8, other_body: bool, sequence: Option<u8>, unknown: bool, gone: bool },
    Lease(u8),
    GiveBack(u8),
    HoldLeased(u8),
    Send(u8),
    Finish(u8, Result),
    Hold(u8),
    Release(u8),
    WriteOff(u8),
    Late(u8),
    Live(u8),
    Start,
}

#[derive(Clone, Copy, Debug)]
enum Result {
    Completed,
    Declined,
    NotSent,
    Unknown,
    Held,
}

fn act() -> impl Strategy<Value = Act> {
    let entry = 0..6_u8;
    let result = prop::sample::select(vec![
        Result::Completed,
        Result::Declined,
        Result::NotSent,
        Result::Unknown,
        Result::Held,
    ]);
    prop_oneof![
        6 => (0..8_u8, prop::bool::weighted(0.1), prop::option::of(0..2_u8), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(key, other_body, sequence, unknown, gone)| Act::Append { key, other_body, sequence, unknown, gone }),
        5 => entry.clone().prop_map(Act::Lease),
        1 => entry.clone().prop_map(Act::GiveBack),
        1 => entry.clone().prop_map(Act::HoldLeased),
        5 => entry.clone().prop_map(Act::Send),
        5 => (entry.clone(), result).prop_map(|(entry, result)| Act::Finish(entry, result)),
        1 => entry.clone().prop_map(Act::Hold),
        2 => entry.clone().prop_map(Act::Release),
        1 => entry.clone().prop_map(Act::WriteOff),
        1 => entry.clone().prop_map(Act::Late),
        1 => (0..8_u8).prop_map(Act::Live),
        1 => Just(Act::Start),
    ]
}

/// An entry as it should be.
#[derive(Clone, Debug)]
struct Model {
    key: u8,
    other_body: bool,
    sequence: Option<u8>,
    state: State,
    outcome: Option<Outcome>,
    held: Option<HeldReason>,
    certainty: Certainty,
    attempts: u32,
    interrupted: u32,
    lines: usize,
}

#[derive(Default)]
struct World {
    models: Vec<Model>,
    durables: Vec<Durable>,
    leases: BTreeMap<usize, Lease>,
    sendings: BTreeMap<usize, Sending>,
}

impl Model {
    fn close(&mut self, outcome: Outcome) {
        (self.state, self.outcome, self.held) = (State::Closed, Some(outcome), None);
        self.lines += 1;
    }

    fn hold(&mut self, reason: HeldReason) {
        (self.state, self.held) = (State::Held, Some(reason));
        self.interrupted = 0;
        self.lines += 1;
    }
}

impl World {
    fn is_head(&self, at: usize) -> bool {
        let sequence = self.models[at].sequence;
        sequence.is_none()
            || !self.models[..at]
                .iter()
                .any(|other| other.sequence == sequence && other.state != State::Closed)
    }

    async fn act(&mut self, store: &mut Store, act: Act, folder: &Path) {
        match act {
            Act::Append { key, other_body, sequence, unknown, gone } => {
                self.append(store, key, other_body, sequence, unknown, gone).await;
            }
            Act::Live(key) => self.live(store, key).await,
            Act::Start => {
                std::mem::replace(store, Store::without("starting")).close().await;
                *store = Store::open(fast(folder)).unwrap();
                self.start();
            }
            Act::Lease(at)
            | Act::GiveBack(at)
            | Act::HoldLeased(at)
            | Act::Send(at)
            | Act::Finish(at, _)
            | Act::Hold(at)
            | Act::Release(at)
            | Act::WriteOff(at)
            | Act::Late(at)
                if at as usize >= self.models.len() => {}
            Act::Lease(at) => {
                let at = at as usize;
                let may = self.models[at].state == State::Stored && self.is_head(at);
                let lease = store.lease(self.durables[at].seq());
                assert_eq!(lease.is_some(), may);
                if let Some(lease) = lease {
                    self.models[at].state = State::Leased;
                    self.leases.insert(at, lease);
                }
            }
            Act::GiveBack(at) => {
                let at = at as usize;
                if let Some(lease) = self.leases.remove(&at) {
                    store.give_back(lease);
                    if self.models[at].state == State::Leased {
                        self.models[at].state = State::Stored;
                    }
                }
            }
            Act::HoldLeased(at) => {
                let at = at as usize;
                if let Some(lease) = self.leases.remove(&at) {
                    let held = store.hold_leased(lease, HeldReason::Expired, "past").await;
                    if self.models[at].state == State::Leased {
                        held.unwrap();
                        self.models[at].hold(HeldReason::Expired);
                    } else {
                        assert!(
                            matches!(held, Err(StoreError::Moved(now)) if now == self.models[at].state)
                        );
                    }
                }
            }
            Act::Send(at) => self.send(store, at as usize).await,
            Act::Finish(at, result) => self.finish(store, at as usize, result).await,
            Act::Hold(at) | Act::Release(at) | Act::WriteOff(at) => {
                self.person(store, at as usize, &act).await;
            }
            Act::Late(at) => {
                let at = at as usize;
                let late = store
                    .close_late(&self.durables[at], Outcome::Completed, "late", answer(200))
                    .await;
                let model = &mut self.models[at];
                if matches!(model.state, State::Stored | State::Leased) {
                    late.unwrap();
                    model.close(Outcome::Completed);
                    self.void(at);
                } else {
                    assert!(matches!(late, Err(StoreError::Moved(now)) if now == model.state));
                    model.lines += 1;
                }
            }
        }
    }

    async fn append(
        &mut self,
        store: &Store,
        key: u8,
        other_body: bool,
        sequence: Option<u8>,
        unknown: bool,
        gone: bool,
    ) {
        let mut new = entry(key.into());
        if other_body {
            new.identity.fingerprint = Digest(1 << 100);
        }
        new.sequence = sequence.map(|sequence| Digest(sequence.into()));
        new.certainty = if unknown { Certainty::SentUnknown } else { Certainty::NotSent };
        new.held = gone.then_some(HeldReason::Unanswered);
        let certainty = new.certainty;
        let appended = store.append(new).await.unwrap();
        let Some(at) = self.models.iter().position(|model| model.key == key) else {
            let Appended::New(durable) = appended else { panic!("{appended:?}") };
            self.durables.push(durable);
            self.models.push(Model {
                key,
                other_body,
                sequence,
                state: if gone { State::Held } else { State::Stored },
                outcome: None,
                held: gone.then_some(HeldReason::Unanswered),
                certainty,
                attempts: 0,
                interrupted: 0,
                lines: 1,
            });
            return;
        };
        let model = &mut self.models[at];
        if model.other_body != other_body {
            assert!(matches!(appended, Appended::Conflict), "{appended:?}");
            return;
        }
        let Appended::Same { seq, state, outcome, .. } = appended else { panic!("{appended:?}") };
        if model.held == Some(HeldReason::Unanswered) && !gone {
            // This time somebody hears the answer.
            (model.state, model.held) = (State::Stored, None);
            model.certainty = model.certainty.max(certainty);
            model.lines += 1;
        }
        assert_eq!((seq, state, outcome), (self.durables[at].seq(), model.state, model.outcome));
        if model.state != State::Closed && certainty > model.certainty {
            model.certainty = certainty;
            model.lines += 1;
            if model.state == State::Leased {
                model.state = State::Stored;
                self.void(at);
            }
        }
    }

    async fn live(&mut self, store: &Store, key: u8) {
        let live =
            store.close_live(Digest(key.into()), Outcome::Declined, "live", answer(400)).await;
        let Some(at) = self.models.iter().position(|model| model.key == key) else {
            assert!(matches!(live, Err(StoreError::NotFound)));
            return;
        };
        let model = &mut self.models[at];
        match model.state {
            State::Stored | State::Leased | State::Held => {
                live.unwrap();
                model.close(Outcome::Declined);
                self.void(at);
            }
            State::Sending | State::Closed => {
                assert!(matches!(live, Err(StoreError::Moved(now)) if now == model.state));
                model.lines += usize::from(model.state == State::Sending);
            }
        }
    }

    async fn send(&mut self, store: &Store, at: usize) {
        let Some(lease) = self.leases.remove(&at) else { return };
        let sending = store.sending(lease).await;
        let model = &mut self.models[at];
        if model.state == State::Leased {
            let sending = sending.unwrap();
            model.state = State::Sending;
            model.attempts += 1;
            model.lines += 1;
            assert_eq!(sending.attempt, model.attempts);
            self.sendings.insert(at, sending);
        } else {
            assert!(matches!(sending, Err(StoreError::Moved(now)) if now == model.state));
        }
    }

    async fn finish(&mut self, store: &Store, at: usize, result: Result) {
        let Some(sending) = self.sendings.remove(&at) else { return };
        let verdict = match result {
            Result::Completed => close(Outcome::Completed),
            Result::Declined => close(Outcome::Declined),
            Result::NotSent => again(Certainty::NotSent),
            Result::Unknown => again(Certainty::SentUnknown),
            Result::Held => Verdict::Hold {
                reason: HeldReason::Credentials,
                certainty: Certainty::NotSent,
                why: "401".into(),
                answer: None,
            },
        };
        store.finish(&sending, verdict).await.unwrap();
        let model = &mut self.models[at];
        model.interrupted = 0;
        match result {
            Result::Completed => model.close(Outcome::Completed),
            Result::Declined => model.close(Outcome::Declined),
            Result::NotSent => {
                (model.state, model.attempts) = (State::Stored, model.attempts - 1);
                model.lines += 1;
            }
            Result::Unknown => {
                (model.state, model.certainty) = (State::Stored, Certainty::SentUnknown);
                model.lines += 1;
            }
            Result::Held => model.hold(HeldReason::Credentials),
        }
    }

    async fn person(&mut self, store: &Store, at: usize, act: &Act) {
        let seq = self.durables[at].seq();
        let model = &mut self.models[at];
        let (done, may) = match act {
            Act::Hold(_) => (
                store.hold(seq, "ada", "a").await,
                matches!(model.state, State::Stored | State::Leased),
            ),
            Act::Release(_) => {
                (store.release(seq, Duration::ZERO, "ada", "a").await, model.state == State::Held)
            }
            _ => (
                store.write_off(seq, "ada", "a").await,
                !matches!(model.state, State::Sending | State::Closed),
            ),
        };
        if !may {
            assert!(matches!(done, Err(StoreError::Moved(now)) if now == model.state));
            return;
        }
        done.unwrap();
        match act {
            Act::Hold(_) => model.hold(HeldReason::ByPerson),
            Act::Release(_) => {
                (model.state, model.held, model.attempts) = (State::Stored, None, 0);
                model.interrupted = 0;
                model.lines += 1;
            }
            _ => model.close(Outcome::WrittenOff),
        }
        self.void(at);
    }

    /// The claim stays in the replayer's hands; it is worth nothing now, which later acts show.
    fn void(&mut self, _at: usize) {}

    fn start(&mut self) {
        self.leases.clear();
        self.sendings.clear();
        for model in &mut self.models {
            match model.state {
                State::Leased => model.state = State::Stored,
                State::Sending => {
                    model.certainty = Certainty::SentUnknown;
                    model.interrupted += 1;
                    model.lines += 1;
                    if model.interrupted < 3 {
                        model.state = State::Stored;
                    } else {
                        (model.state, model.held) = (State::Held, Some(HeldReason::Attempts));
                    }
                }
                _ => {}
            }
        }
    }

    async fn check(&self, store: &Store) {
        let mut due_now = Vec::new();
        for (at, model) in self.models.iter().enumerate() {
            let seq = self.durables[at].seq();
            let read = store.load(seq).await.unwrap();
            let seen = (read.state, read.outcome, read.held, read.certainty, read.attempts);
            let expected =
                (model.state, model.outcome, model.held, model.certainty, model.attempts);
            assert_eq!(seen, expected, "entry {at}");
            assert!(read.intact);
            assert_eq!(store.history(seq).await.unwrap().len(), model.lines, "entry {at}");
            if model.state == State::Stored && self.is_head(at) {
                due_now.push(seq);
            }
            let fingerprint =
                if model.other_body { Digest(1 << 100) } else { fingerprint(model.key.into()) };
            let known = match model.outcome {
                Some(outcome) => KeyState::Remembered { seq, same: true, outcome },
                None => KeyState::Open {
                    seq,
                    same: true,
                    state: model.state,
                    held: model.held,
                    certainty: model.certainty,
                },
            };
            assert_eq!(store.key_state(Digest(model.key.into()), fingerprint), known);
        }
        let later = UnixMillis::now().plus(Duration::from_secs(3600));
        assert_eq!(store.due(&Scope::default(), later, 100), due_now);
        for sequence in 0..2 {
            let head = self
                .models
                .iter()
                .find(|model| model.sequence == Some(sequence) && model.state != State::Closed);
            let expected = match head {
                None => SequenceState::Free,
                Some(head) if head.state == State::Held => SequenceState::HeadHeld,
                Some(_) => SequenceState::Queued,
            };
            assert_eq!(store.sequence_state(Digest(sequence.into())), expected);
        }
        let open = self.models.iter().filter(|model| model.state != State::Closed);
        let held = open.clone().filter(|model| model.state == State::Held).count() as u64;
        let open = open.count() as u64;
        let totals = store.totals().routes.get("checkout").cloned().unwrap_or_default();
        assert_eq!((totals.open, totals.held, totals.open_sum), (open, held, 100 * open as i64));
        assert_eq!(store.open_in(&Scope::default()), open - held);
    }
}

fn fast(folder: &Path) -> StoreOptions {
    StoreOptions { synchronous: Synchronous::NormalForTests, ..options(folder) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_its_model_does(acts in prop::collection::vec(act(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut store = Store::open(fast(folder.path())).unwrap();
            let mut world = World::default();
            for act in acts {
                world.act(&mut store, act, folder.path()).await;
            }
            world.check(&store).await;
            store.close().await;
            let store = Store::open(fast(folder.path())).unwrap();
            world.start();
            world.check(&store).await;
        });
    }
}
