//! No panic crosses FFI.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Level, log};

/// Runs a hook; a panic is logged and gives `None`.
pub(super) fn guarded<T>(hook: &str, body: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => Some(result),
        Err(panic) => {
            let reason = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no reason given");
            log(Level::Error, &format!("meltemi: bug in hook {hook}: {reason}"));
            // The payload's own drop could panic again.
            core::mem::forget(panic);
            None
        }
    }
}
