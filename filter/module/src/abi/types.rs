//! C types of the ABI (`source/extensions/dynamic_modules/abi/abi.h` of Envoy).

use core::{ffi::c_void, slice};

/// Pointer that only Envoy looks behind.
pub(super) type EnvoyPtr = *mut c_void;
/// Pointer to something of ours.
pub(super) type ModulePtr = *const c_void;

/// `envoy_dynamic_module_type_{envoy,module}_buffer`: borrowed bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Buffer {
    pub(super) ptr: *const u8,
    pub(super) length: usize,
}

impl Buffer {
    pub(super) const EMPTY: Self = Self { ptr: core::ptr::null(), length: 0 };

    pub(super) const fn of(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), length: bytes.len() }
    }

    /// # Safety
    /// `ptr` must be null or point to `length` bytes that live, unchanged, as long as `'a`.
    pub(super) const unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() || self.length == 0 {
            return &[];
        }
        // SAFETY: by the contract of this function.
        unsafe { slice::from_raw_parts(self.ptr, self.length) }
    }
}

/// `envoy_dynamic_module_type_{envoy,module}_http_header`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct HttpHeader {
    pub(super) name: Buffer,
    pub(super) value: Buffer,
}

impl HttpHeader {
    pub(super) const EMPTY: Self = Self { name: Buffer::EMPTY, value: Buffer::EMPTY };

    pub(super) const fn of((name, value): (&[u8], &[u8])) -> Self {
        Self { name: Buffer::of(name), value: Buffer::of(value) }
    }
}

/// Answer of a filter hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    /// On to the next filter.
    Continue = 0,
    /// Not further.
    Stop = 1,
}

/// Event of a downstream connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionEvent {
    /// The client closed it.
    ClosedByClient,
    /// Envoy or one of its filters did.
    ClosedByEnvoy,
    /// Anything else.
    Other,
}

impl ConnectionEvent {
    pub(crate) fn is_closed(self) -> bool {
        self != Self::Other
    }
}
