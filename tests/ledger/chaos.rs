//! What happens to shop and standin while customers order, round after round.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::customers::Log;
use crate::support::{Shop, Standin, eventually};

/// Where standin is made to die: the row is committed and nobody knows; the intent to send is on disk and nothing was
/// sent; the app has applied and answered and nothing of that is on disk.
pub const POINTS: [&str; 3] = ["after_commit_before_ack", "after_sending", "after_app_applied"];

/// The one who makes trouble, round after round.
pub struct Chaos<'a> {
    standin: Option<Standin>,
    log: &'a Log,
    kills: Kills,
    dice: Dice,
}

/// How often standin was killed, and where.
#[derive(Debug, Default)]
pub struct Kills(BTreeMap<&'static str, usize>);

impl Kills {
    pub fn at(&self, point: &str) -> usize {
        self.0.get(point).copied().unwrap_or_default()
    }

    pub fn total(&self) -> usize {
        self.0.values().sum()
    }
}

impl<'a> Chaos<'a> {
    pub fn over(standin: Standin, log: &'a Log) -> Self {
        Self { standin: Some(standin), log, kills: Kills::default(), dice: Dice::new() }
    }

    pub fn over_now(self) -> (Standin, Kills) {
        (self.standin.expect("it runs between rounds"), self.kills)
    }

    /// Peace, then one of the shop's troubles with one of standin's in the middle of it, then peace again.
    pub async fn round(&mut self, round: usize, shop: &mut Shop) {
        // With three points and a random kill in four rounds, and seven troubles, all pairs come in 28 rounds.
        let point = POINTS.get(round % 4).copied();
        self.some_go_by(150).await;
        if let Some(point) = point {
            // Some troubles leave little to replay: their late answers settle most of it.
            let after = 1 + self.dice.below(if point == POINTS[0] { 20 } else { 3 });
            self.kill_at_random(&[format!("--failpoint={point}:{after}")]).await;
            self.some_go_by(50).await;
        }

        let trouble = trouble(round);
        self.begin(&trouble, shop).await;
        self.some_go_by(150).await;
        match point {
            None => {
                let a_while = self.dice.below(150);
                self.some_go_by(a_while).await;
                self.kill_at_random(&[]).await;
                self.some_go_by(100).await;
            }
            // It is hit while the shop is in trouble, the others when the shop is back.
            Some(point @ "after_commit_before_ack") => {
                self.dies_at(point, &trouble, shop).await;
                self.some_go_by(100).await;
            }
            Some(_) => {}
        }
        self.end(&trouble, shop).await;
        if let Some(point @ ("after_sending" | "after_app_applied")) = point {
            self.dies_at(point, &None, shop).await;
        }
        self.some_go_by(150).await;
    }

    async fn begin(&self, trouble: &Trouble, shop: &mut Shop) {
        match trouble {
            Some(faults) => shop.faults(faults).await,
            None => shop.kill(),
        }
    }

    async fn end(&self, trouble: &Trouble, shop: &mut Shop) {
        match trouble {
            Some(_) => shop.heal().await,
            None => shop.restart().await,
        }
    }

    async fn kill_at_random(&mut self, arguments: &[String]) {
        let mut standin = self.standin.take().expect("it runs");
        standin.kill();
        *self.kills.0.entry("random").or_default() += 1;
        let with_arguments =
            standin.restart_with(|setup| arguments.iter().fold(setup, |setup, one| setup.arg(one)));
        self.standin = Some(with_arguments.await);
    }

    /// Standin kills itself where it was told to, and starts again without being told. It may be that nothing comes to
    /// that point: the caps used up, or all settled by late answers. Then the shop is well and in trouble in turns, and
    /// in the end what it was before.
    async fn dies_at(&mut self, point: &'static str, trouble: &Trouble, shop: &mut Shop) {
        let mut standin = self.standin.take().expect("it runs");
        let began = Instant::now();
        while !standin.process().has_ended() {
            assert!(began.elapsed() < LONGEST_LIFE, "{point} is not reached");
            self.some_go_by(40).await;
            if began.elapsed() < LONG_LIFE {
                continue;
            }
            if point == POINTS[0] {
                self.end(trouble, shop).await;
                self.some_go_by(150).await;
                self.begin(trouble, shop).await;
            } else {
                self.begin(trouble, shop).await;
                self.some_go_by(60).await;
                self.end(trouble, shop).await;
            }
        }
        assert!(
            standin.process().whole_output().contains(&format!("failpoint {point}")),
            "died elsewhere"
        );
        *self.kills.0.entry(point).or_default() += 1;
        self.standin = Some(standin.restart().await);
    }

    /// Returns when so many requests more came to an end.
    async fn some_go_by(&self, how_many: usize) {
        let enough = self.log.ended() + how_many;
        eventually(Duration::from_secs(30), async || {
            let ended = self.log.ended();
            if ended >= enough { Ok(()) } else { Err(format!("{ended} of {enough} requests")) }
        })
        .await;
    }
}

/// It comes sooner, if it comes at all.
const LONG_LIFE: Duration = Duration::from_secs(3);

/// By then every customer may be stood in for again.
const LONGEST_LIFE: Duration = Duration::from_secs(90);

/// Faults of the shop. None: it is killed.
type Trouble = Option<Value>;

fn trouble(round: usize) -> Trouble {
    Some(match round % 7 {
        1 => json!({ "kind": "drop_after", "every": 2 }),
        2 => json!({ "delay_before_ms": 900 }),
        3 => json!({ "kind": "error_after", "every": 2 }),
        5 => json!({ "delay_after_ms": 900 }),
        6 => json!({ "kind": "half_answer", "every": 3 }),
        _ => return None,
    })
}

/// Random enough; its seed is printed, so that a failure can be had again.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = u64::from(uuid::Uuid::now_v7().as_fields().1) | 1 << 40;
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}
