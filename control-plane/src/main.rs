//! `meltemi`: the control plane's command line.

use std::process::ExitCode;

/// The system's own keeps what a burst of connections has used. Huge pages are left out (in Cargo.toml): of a page of 2 MiB
/// nothing is given back as long as something in it is used.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match meltemi_control_plane::cli::run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("meltemi: {error:#}");
            ExitCode::from(2)
        }
    }
}
