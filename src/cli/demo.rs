//! `standin demo`: the whole story on one screen. A real app in a process of its own, really killed; orders over real
//! sockets; at the end the customers' log is counted against the app's own ledger.

mod customers;
mod receipt;
mod screen;
pub mod shop;
mod stage;

use std::{io, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, timeout},
};

use self::{
    customers::{Customers, Log},
    receipt::Receipt,
    screen::{Screen, seconds},
    shop::Dedupe,
    stage::Stage,
};

/// `standin demo`
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Leave shop and standin running at the end, to try by hand, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// How long customers order.
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u64).range(4..=600))]
    pub seconds: u64,
    /// How the shop knows a duplicate: `none` shows that the receipt would count a doubled order.
    #[arg(long, hide = true, value_enum, default_value_t)]
    pub shop_dedupe: Dedupe,
    /// How long the shop takes between applying and answering: its death leaves that many orders unanswered.
    #[arg(long, hide = true, default_value_t = 0)]
    pub shop_answers_after_ms: u64,
}

/// Why the demo did not show what it should.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the shop's ledger cannot be read: {0}")]
    Ledger(#[from] rusqlite::Error),
    #[error("{who} did not start:\n{wrote}")]
    NotStarted { who: &'static str, wrote: String },
    #[error("{0}")]
    Broken(String),
    #[error("stopped")]
    Stopped,
}

/// Tells the story and ends what it started, however it goes.
pub fn run(args: &DemoArgs) -> Result<(), DemoError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let screen = Screen::new();
        let mut stage = Stage::empty(args)?;
        let told = tokio::select! {
            told = story(args, &screen, &mut stage) => told,
            _ = terminate.recv() => Err(DemoError::Stopped),
            _ = interrupt.recv() => Err(DemoError::Stopped),
        };
        let told = match told {
            // That is how `--keep` ends.
            Err(DemoError::Stopped) if args.keep => Ok(()),
            told => told,
        };
        stage.end(matches!(told, Ok(()) | Err(DemoError::Stopped))).await;
        told
    })
}

async fn story(args: &DemoArgs, screen: &Screen, stage: &mut Stage) -> Result<(), DemoError> {
    screen.say("standin demo: a toy shop, standin in front of it, and customers who keep ordering");
    screen.say("");
    stage.open_shop().await?;
    stage.start_standin().await?;
    for line in stage.who_is_who() {
        screen.say(&line);
    }

    let log = Log::default();
    let customers = Customers::enter(stage.front_door(), &log);
    let part = |share: u64| Duration::from_millis(args.seconds * share * 10);

    screen.title("The shop is open");
    let mark = log.mark();
    screen.follow(sleep(part(20)), || mark.since().in_words()).await;

    let pid = stage.kill_shop().await?;
    let killed_at = Instant::now();
    screen.title(&format!("The shop is killed (SIGKILL, pid {pid}); customers go on"));
    let mark = log.mark();
    screen.follow(sleep(part(50)), || mark.since().in_words_from(killed_at)).await;

    stage.open_shop().await?;
    let back =
        format!("The shop is back (pid {}); what was stood in is replayed", stage.shop_pid());
    screen.title(&back);
    let mark = log.mark();
    screen.follow(sleep(part(30)), || mark.since().in_words()).await;
    customers.leave().await;
    let receipt = drain(screen, stage, &log).await?;
    screen.receipt(&receipt);
    receipt.verdict()?;
    if args.keep {
        keep(screen, stage).await?;
    }
    Ok(())
}

/// Waits until the ledger has every order that was acknowledged. Too slow is no error of its own: the receipt counts
/// what is missing.
async fn drain(screen: &Screen, stage: &Stage, log: &Log) -> Result<Receipt, DemoError> {
    let count = || Receipt::count(log, &stage.ledger()?);
    let all_there = async {
        while count()?.lost > 0 {
            sleep(Duration::from_millis(100)).await;
        }
        Ok::<_, DemoError>(())
    };
    let in_words = || match count() {
        Ok(now) => format!("{} orders in the shop's ledger, {} to come", now.in_ledger, now.lost),
        Err(error) => error.to_string(),
    };
    screen.follow(timeout(LONGEST_DRAIN, all_there), in_words).await.unwrap_or(Ok(()))?;
    let receipt = count()?;
    if let Some(last) = receipt.last_replay {
        let took = seconds(last.since(stage.shop_opened_at()));
        screen.say(&format!("    the last replay was done {took} after the shop came back"));
    }
    Ok(receipt)
}

/// Lets a person play: a shop that is killed by hand comes back after a while.
async fn keep(screen: &Screen, stage: &mut Stage) -> Result<(), DemoError> {
    for line in stage.how_to_play() {
        screen.say(&line);
    }
    loop {
        stage.shop_ended().await?;
        screen.say(&format!("  the shop is down; it comes back in {}", seconds(COME_BACK)));
        sleep(COME_BACK).await;
        stage.open_shop().await?;
        screen.say(&format!("  the shop is back (pid {})", stage.shop_pid()));
    }
}

const LONGEST_DRAIN: Duration = Duration::from_secs(10);
const COME_BACK: Duration = Duration::from_secs(20);
