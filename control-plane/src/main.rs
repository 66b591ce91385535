//! `meltemi`: the control plane's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    match meltemi_control_plane::cli::run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("meltemi: {error:#}");
            ExitCode::from(2)
        }
    }
}
