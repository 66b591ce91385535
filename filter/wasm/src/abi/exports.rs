//! What Envoy calls.

use std::alloc::{Layout, alloc};

use crate::vm::{self, Action};

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Memory that Envoy fills and whose pointer it then gives to us, see [`taken`](super::envoy). None, where there is none left:
/// its call fails then, and no VM ends.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    match Layout::array::<u8>(size) {
        // SAFETY: of some size, as `alloc` wants it.
        Ok(layout) if size > 0 => unsafe { alloc(layout) },
        _ => core::ptr::null_mut(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_root: u32, _size: usize) -> u32 {
    1
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, root: u32) {
    vm::on_create(context, root);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, size: usize) -> u32 {
    u32::from(vm::on_configure(root, size))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root: u32) {
    vm::on_tick(root);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_new_connection(context: u32) -> Action {
    vm::on_new_connection(context)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_downstream_data(context: u32, size: usize, end: u32) -> Action {
    vm::with(context, |connection| connection.on_read(size, end != 0))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_upstream_data(context: u32, size: usize, end: u32) -> Action {
    vm::with(context, |connection| connection.on_write(size, end != 0))
}

/// `peer`: 1 if we closed, 2 if the other end did.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_downstream_connection_close(context: u32, peer: u32) {
    vm::on_closed(context, peer == 1);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_upstream_connection_close(_context: u32, _peer: u32) {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_done(context: u32) -> u32 {
    vm::on_done(context);
    1
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(_context: u32) {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    vm::on_delete(context);
}
