//! The commands and their help; `run` reads as the life of the process.

pub mod check;
pub mod demo;
mod output;
mod remote;
mod run;
pub mod schema;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::run::RunArgs;

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
    #[command(flatten)]
    Remote(remote::RemoteCommand),
    /// See the whole story on one screen: a shop that is killed, orders that go on, nothing lost or doubled.
    Demo(demo::DemoArgs),
    /// The app that the demo and the tests put standin in front of.
    #[command(hide = true)]
    ToyShop(demo::shop::ShopArgs),
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

/// Reads the arguments and does what they ask.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Remote(command) => remote::run(&command),
        Command::Demo(args) => demo::run(&args).map_err(Failure::general),
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
