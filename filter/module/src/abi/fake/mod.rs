//! Envoy's side of the ABI for unit tests: the callbacks that the module calls, and safe calls of the module's hooks.
//!
//! One Envoy a thread, so each test has its own. Like the real one it calls back from within: the next filter may write
//! while it reads, a close tells of itself, and a response may destroy the bridge that sends it.

use core::{cell::RefCell, ffi::CStr, ptr};
use std::collections::BTreeMap;

use super::types::{Buffer, EnvoyPtr, ModulePtr};

pub(crate) use bridge::{Bridge, Response};
pub(crate) use network::{NetworkFilter, accept, close};

/// Gets what the filter before it lets through, and whether that is the last, and answers.
type NextFilter = Box<dyn FnMut(&[u8], bool) -> Vec<u8>>;

/// What the module sees of Envoy, and what it has done to it.
#[derive(Default)]
pub(crate) struct Envoy {
    pub(crate) log: Vec<String>,
    pub(crate) local_address: Option<(&'static str, u32)>,
    pub(crate) metrics: Vec<(String, i64)>,
    pub(crate) filter_state: BTreeMap<String, String>,
    pub(crate) protocols: Vec<String>,
    /// The connection's read buffer, the bytes being written, and where they go.
    pub(crate) read: Vec<u8>,
    pub(crate) write: Vec<u8>,
    pub(crate) to_next_filter: Vec<u8>,
    pub(crate) next_filter: Option<NextFilter>,
    pub(crate) next_filter_ended: bool,
    pub(crate) refuses_state: bool,
    pub(crate) to_client: Vec<u8>,
    pub(crate) reading_disabled: bool,
    pub(crate) wakeups: usize,
    /// Kind of close: 0 flush, 1 at once.
    pub(crate) closed: Option<u32>,
    /// The filter of this thread.
    filter: Option<ModulePtr>,
    /// Calls that the real Envoy would not survive.
    misuse: Vec<&'static str>,
    pub(crate) request_headers: Vec<(&'static str, String)>,
    /// What `encode_data` or `on_upstream_data` shows, in pieces.
    pub(crate) bridge_data: Vec<Vec<u8>>,
    pub(crate) to_server: Vec<u8>,
    pub(crate) to_server_ended: bool,
    pub(crate) response: Option<Response>,
    /// The bridge of this thread, until it is destroyed.
    bridge: Option<ModulePtr>,
    /// The route tries again what was answered with a 5xx.
    pub(crate) retries: bool,
    /// A filter resets the request when it sees the headers of the response.
    pub(crate) resets: bool,
}

impl Envoy {
    pub(crate) fn metric(&self, name: &str) -> i64 {
        self.metrics.iter().find(|(metric, _)| metric == name).map(|(_, value)| *value).unwrap()
    }

    /// The module does something that needs the bridge.
    fn needs_bridge(&mut self, what: &'static str) {
        if self.bridge.is_none() {
            self.misuse.push(what);
        }
    }

    /// The module does something that needs the connection.
    fn needs_connection(&mut self, what: &'static str) {
        if self.closed.is_some() {
            self.misuse.push(what);
        }
    }

    fn check(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(core::mem::take(&mut self.misuse), <[&str; 0]>::default());
        }
    }

    fn change_metric(&mut self, id: usize, by: i64) -> u32 {
        self.metrics[id].1 += by;
        0
    }
}

thread_local! {
    static ENVOY: RefCell<Envoy> = RefCell::default();
}

/// This thread's Envoy.
pub(crate) fn envoy<T>(work: impl FnOnce(&mut Envoy) -> T) -> T {
    ENVOY.with_borrow_mut(work)
}

const NOBODY: EnvoyPtr = ptr::null_mut();

fn bytes(buffer: Buffer) -> Vec<u8> {
    // SAFETY: the module lends it for the call.
    unsafe { buffer.bytes() }.to_vec()
}

fn text(buffer: Buffer) -> String {
    String::from_utf8(bytes(buffer)).unwrap()
}

macro_rules! callbacks {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {$(
        #[unsafe(export_name = concat!("envoy_dynamic_module_callback_", stringify!($name)))]
        extern "C" fn $name($($argument: $type),*) $(-> $result)? $body
    )*};
}

macro_rules! hooks {
    ($($name:ident($($type:ty),*) $(-> $result:ty)?;)*) => {
        // Declared here and found by name, as Envoy finds them.
        unsafe extern "C" {$(
            #[link_name = concat!("envoy_dynamic_module_on_", stringify!($name))]
            safe fn $name($(_: $type),*) $(-> $result)?;
        )*}
    };
}

mod bridge;
mod network;

callbacks! {
    log(_level: u32, message: Buffer) { envoy(|e| e.log.push(text(message))) }
}

/// The version that the module says it was made for.
pub(crate) fn version() -> &'static CStr {
    // SAFETY: a static string.
    unsafe { CStr::from_ptr(super::program_init()) }
}
