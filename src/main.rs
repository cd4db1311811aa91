//! Arguments, command, exit code.

fn main() -> std::process::ExitCode {
    standin::cli::run()
}
