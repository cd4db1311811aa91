//! The commands and their help; `run` reads as the life of the process.

pub mod check;
pub mod demo;
mod output;
mod remote;
mod run;
pub mod schema;

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

use self::run::RunArgs;
use crate::config::Config;

/// Keeps an app taking orders while the app is down: a reverse proxy that answers in its stead and replays later.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Stand in front of an app, until SIGTERM or Ctrl-C.
    Run(RunArgs),
    /// Say what each route will do, what it may cost at worst and what protects its replays.
    Check(CheckArgs),
    #[command(flatten)]
    Remote(remote::RemoteCommand),
    /// See the whole story on one screen: a shop that is killed, orders that go on, nothing lost or doubled.
    Demo(demo::DemoArgs),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Print completions for a shell.
    Completions { shell: clap_complete::Shell },
    /// The app that the demo and the tests put standin in front of.
    #[command(hide = true)]
    ToyShop(demo::shop::ShopArgs),
}

/// `standin check`
#[derive(Clone, Debug, clap::Args)]
struct CheckArgs {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", default_value = "standin.toml")]
    config: PathBuf,
    /// For programs.
    #[arg(long)]
    json: bool,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed (or the server said no), 2 usage, 3 invalid configuration, \
                          4 the store cannot be used, 5 cannot listen, 6 cannot reach the admin API";

/// Why a command did not do what was asked: the code says which kind, the text what to do.
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn general(error: impl std::fmt::Display) -> Self {
        Self { code: 1, text: error.to_string() }
    }
}

fn check(args: &CheckArgs) -> Result<(), Failure> {
    let config = Config::load(&args.config)
        .map_err(|faults| Failure { code: 3, text: faults.to_string() })?;
    let report = check::check(&config);
    if args.json {
        let json = serde_json::to_value(&report).map_err(Failure::general)?;
        return print(&format!("{json:#}"));
    }
    print(&report.to_string())
}

/// To standard output; a reader that has left is no failure of ours.
fn print(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::general(error))
        }
        _ => Ok(()),
    }
}

/// Reads the arguments and does what they ask.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check(&args),
        Command::Remote(command) => remote::run(&command),
        Command::Demo(args) => demo::run(&args).map_err(Failure::general),
        Command::Schema => print(&format!("{:#}", schema::json_schema())),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "standin", &mut text);
            print(&String::from_utf8_lossy(&text))
        }
        Command::ToyShop(args) => demo::shop::run(&args).map_err(Failure::general),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, text }) => {
            eprintln!("standin: {text}");
            ExitCode::from(code)
        }
    }
}
