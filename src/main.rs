//! Arguments, command, exit code.

/// Measured on the pass-through path: about 1.5 µs a request less than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    standin::cli::run()
}
