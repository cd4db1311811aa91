//! The commands and their help.

pub mod demo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// See the whole story on one screen: a shop that is killed, orders that go on, nothing lost or doubled.
    Demo(demo::DemoArgs),
    /// The app that the demo and the tests put standin in front of.
    #[command(hide = true)]
    ToyShop(demo::shop::ShopArgs),
}

/// Reads the arguments and does what they ask.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args).map_err(|error| error.to_string()),
        Command::ToyShop(args) => demo::shop::run(&args).map_err(|error| error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("standin: {error}");
            ExitCode::FAILURE
        }
    }
}
