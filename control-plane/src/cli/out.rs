//! What commands print for people and scripts.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
    process,
};

/// As a shell says it of a program that a closed pipe has ended.
const CLOSED: i32 = 141;
/// As of any other error.
const FAILED: i32 = 2;

/// Prints a line.
pub(super) fn line(what: impl Display) {
    text(format_args!("{what}\n"));
}

/// Prints a text. If nobody reads it any more, as behind `| head`, there is nothing left to do.
pub(super) fn text(what: impl Display) {
    if let Err(error) = write(what) {
        if error.kind() == ErrorKind::BrokenPipe {
            process::exit(CLOSED);
        }
        eprintln!("meltemi: cannot write what was asked for: {error}");
        process::exit(FAILED);
    }
}

/// Prints a line about work, which must come to its end whether somebody reads of it or not.
pub(super) fn aside(what: impl Display) {
    let _ = write(format_args!("{what}\n"));
}

fn write(what: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{what}")?;
    out.flush()
}
