//! What commands print for people and scripts.

use std::{
    fmt::Display,
    io::{self, Write},
    process,
};

/// As a shell says it of a program that a closed pipe has ended.
const CLOSED: i32 = 141;

/// Prints a line.
pub(super) fn line(what: impl Display) {
    text(format_args!("{what}\n"));
}

/// Prints a text. If nobody reads it any more, as behind `| head`, there is nothing left to do.
pub(super) fn text(what: impl Display) {
    if write!(io::stdout(), "{what}").is_err() {
        process::exit(CLOSED);
    }
}
