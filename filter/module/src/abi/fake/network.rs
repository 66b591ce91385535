use core::{ffi::c_void, ptr};

use super::{NOBODY, bytes, envoy, text};
use crate::abi::types::{Buffer, EnvoyPtr, ModulePtr};

/// Shows bytes in two pieces.
fn show(data: &[u8], out: *mut Buffer) -> bool {
    let (front, back) = data.split_at(data.len() / 2);
    // SAFETY: `count_pieces` said that there are two.
    unsafe {
        out.write(Buffer::of(front));
        out.add(1).write(Buffer::of(back));
    }
    true
}

fn drain(data: &mut Vec<u8>, length: usize) -> bool {
    data.drain(..length);
    true
}

/// Bytes on their way from the next filter to the client: what the module makes of them.
fn write(data: &[u8], end: bool) -> Vec<u8> {
    let Some(filter) = envoy(|e| e.filter) else { return data.to_vec() };
    // Within the write of others, whose bytes are not ours.
    let others = envoy(|e| core::mem::replace(&mut e.write, data.to_vec()));
    let goes_on = network_filter_write(NOBODY, filter, data.len(), end) == 0;
    let written = envoy(|e| core::mem::replace(&mut e.write, others));
    if goes_on { written } else { Vec::new() }
}

callbacks! {
    network_filter_get_read_buffer_chunks_size(_f: EnvoyPtr) -> usize { 2 }
    network_filter_get_read_buffer_chunks(_f: EnvoyPtr, out: *mut Buffer) -> bool { envoy(|e| show(&e.read, out)) }
    network_filter_drain_read_buffer(_f: EnvoyPtr, length: usize) -> bool { envoy(|e| drain(&mut e.read, length)) }
    network_filter_append_read_buffer(_f: EnvoyPtr, data: Buffer) -> bool {
        envoy(|e| e.read.extend(bytes(data)));
        true
    }
    network_filter_get_write_buffer_chunks_size(_f: EnvoyPtr) -> usize { 2 }
    network_filter_get_write_buffer_chunks(_f: EnvoyPtr, out: *mut Buffer) -> bool { envoy(|e| show(&e.write, out)) }
    network_filter_drain_write_buffer(_f: EnvoyPtr, length: usize) -> bool { envoy(|e| drain(&mut e.write, length)) }
    network_filter_append_write_buffer(_f: EnvoyPtr, data: Buffer) -> bool {
        envoy(|e| e.write.extend(bytes(data)));
        true
    }
    network_filter_inject_read_data(_f: EnvoyPtr, data: Buffer, end: bool) {
        let data = bytes(data);
        let next = envoy(|e| {
            e.needs_connection("inject_read_data");
            e.to_next_filter.extend(&data);
            e.next_filter_ended |= end;
            e.next_filter.take()
        });
        let Some(mut next) = next else { return };
        let answer = next(&data, end);
        envoy(|e| e.next_filter = Some(next));
        if !answer.is_empty() {
            let written = write(&answer, false);
            envoy(|e| e.to_client.extend(written));
        }
    }
    network_filter_inject_write_data(_f: EnvoyPtr, data: Buffer, _end: bool) {
        envoy(|e| {
            e.needs_connection("inject_write_data");
            e.to_client.extend(bytes(data));
        });
    }
    network_filter_close(_f: EnvoyPtr, kind: u32) {
        let (before, filter) = envoy(|e| (e.closed.replace(kind), e.filter));
        if let (None, Some(filter)) = (before, filter) {
            network_filter_event(NOBODY, filter, 1);
        }
    }
    network_filter_read_disable(_f: EnvoyPtr, disable: bool) -> u32 {
        envoy(|e| e.reading_disabled = disable);
        0
    }
    network_filter_enable_half_close(_f: EnvoyPtr, _enable: bool) {}
    network_filter_get_local_address(_f: EnvoyPtr, address: *mut Buffer, port: *mut u32) -> bool {
        local_address(address, port)
    }
    network_set_filter_state_bytes(_f: EnvoyPtr, key: Buffer, value: Buffer) -> bool {
        envoy(|e| e.filter_state.insert(text(key), text(value)));
        true
    }
    network_get_filter_state_bytes(_f: EnvoyPtr, key: Buffer, _out: *mut Buffer) -> bool {
        envoy(|e| e.filter_state.contains_key(&text(key)))
    }
    network_set_filter_state_typed(f: EnvoyPtr, key: Buffer, value: Buffer) -> bool {
        !envoy(|e| e.refuses_state) && network_set_filter_state_bytes(f, key, value)
    }
    network_filter_config_define_counter(_c: EnvoyPtr, name: Buffer, id: *mut usize) -> u32 { define(name, id) }
    network_filter_config_define_gauge(_c: EnvoyPtr, name: Buffer, id: *mut usize) -> u32 { define(name, id) }
    network_filter_config_define_histogram(_c: EnvoyPtr, name: Buffer, id: *mut usize) -> u32 { define(name, id) }
    network_filter_increment_counter(_f: EnvoyPtr, id: usize, by: u64) -> u32 {
        envoy(|e| e.change_metric(id, by.cast_signed()))
    }
    network_filter_increment_gauge(_f: EnvoyPtr, id: usize, by: u64) -> u32 {
        envoy(|e| e.change_metric(id, by.cast_signed()))
    }
    network_filter_decrement_gauge(_f: EnvoyPtr, id: usize, by: u64) -> u32 {
        envoy(|e| e.change_metric(id, -by.cast_signed()))
    }
    network_filter_record_histogram_value(_f: EnvoyPtr, id: usize, _value: u64) -> u32 {
        envoy(|e| e.change_metric(id, 1))
    }
    network_filter_scheduler_new(_f: EnvoyPtr) -> *mut c_void { ptr::dangling_mut() }
    network_filter_scheduler_commit(_s: *mut c_void, _event: u64) { envoy(|e| e.wakeups += 1) }
    network_filter_scheduler_delete(_s: *mut c_void) {}
    listener_filter_get_local_address(_f: EnvoyPtr, address: *mut Buffer, port: *mut u32) -> bool {
        local_address(address, port)
    }
    listener_filter_set_requested_application_protocols(_f: EnvoyPtr, list: *mut Buffer, count: usize) {
        // SAFETY: the module lends a list of this length.
        let list = unsafe { core::slice::from_raw_parts(list, count) };
        envoy(|e| e.protocols = list.iter().map(|protocol| text(*protocol)).collect());
    }
}

fn local_address(address: *mut Buffer, port: *mut u32) -> bool {
    let Some((text, number)) = envoy(|e| e.local_address) else { return false };
    // SAFETY: the module's own memory.
    unsafe {
        address.write(Buffer::of(text.as_bytes()));
        port.write(number);
    }
    true
}

fn define(name: Buffer, id: *mut usize) -> u32 {
    envoy(|e| {
        e.metrics.push((text(name), 0));
        // SAFETY: the module's own memory.
        unsafe { id.write(e.metrics.len() - 1) };
    });
    0
}

hooks! {
    network_filter_config_new(EnvoyPtr, Buffer, Buffer) -> ModulePtr;
    network_filter_config_destroy(ModulePtr);
    network_filter_new(ModulePtr, EnvoyPtr) -> ModulePtr;
    network_filter_destroy(ModulePtr);
    network_filter_new_connection(EnvoyPtr, ModulePtr) -> u32;
    network_filter_read(EnvoyPtr, ModulePtr, usize, bool) -> u32;
    network_filter_write(EnvoyPtr, ModulePtr, usize, bool) -> u32;
    network_filter_event(EnvoyPtr, ModulePtr, u32);
    network_filter_scheduled(EnvoyPtr, ModulePtr, u64);
    network_filter_above_write_buffer_high_watermark(EnvoyPtr, ModulePtr);
    network_filter_below_write_buffer_low_watermark(EnvoyPtr, ModulePtr);
    listener_filter_config_new(EnvoyPtr, Buffer, Buffer) -> ModulePtr;
    listener_filter_config_destroy(ModulePtr);
    listener_filter_new(ModulePtr, EnvoyPtr) -> ModulePtr;
    listener_filter_destroy(ModulePtr);
    listener_filter_on_accept(EnvoyPtr, ModulePtr) -> u32;
}

/// The next filter closes the connection, as `tcp_proxy` does when it loses the server.
pub(crate) fn close() {
    network_filter_close(NOBODY, 1);
}

/// A network filter on one connection.
pub(crate) struct NetworkFilter {
    config: ModulePtr,
    filter: ModulePtr,
}

impl NetworkFilter {
    /// `None` if the module refuses the configuration.
    pub(crate) fn new(name: &str, config: &str) -> Option<Self> {
        let config = network_filter_config_new(NOBODY, Buffer::of(name.as_bytes()), Buffer::of(config.as_bytes()));
        if config.is_null() {
            return None;
        }
        let filter = network_filter_new(config, NOBODY);
        envoy(|e| (e.filter, e.closed) = (Some(filter), None));
        // The relay lets the next filters begin with the first bytes only.
        let waits = u32::from(name == "relay");
        assert_eq!(network_filter_new_connection(NOBODY, filter), waits);
        Some(Self { config, filter })
    }

    /// The client sends; whether the next filter is to see it.
    pub(crate) fn read(&self, data: &[u8]) -> bool {
        self.read_end(data, false)
    }

    /// The client sends, maybe the last.
    pub(crate) fn read_end(&self, data: &[u8], end: bool) -> bool {
        envoy(|e| e.read.extend(data));
        network_filter_read(NOBODY, self.filter, data.len(), end) == 0
    }

    /// The next filter writes; what of it goes on to the client.
    pub(crate) fn write(&self, data: &[u8]) -> Vec<u8> {
        write(data, false)
    }

    /// The next filter writes, and that is the last.
    pub(crate) fn write_end(&self, data: &[u8]) -> Vec<u8> {
        write(data, true)
    }

    /// Runs what the module has scheduled.
    pub(crate) fn wake(&self) {
        for _ in 0..envoy(|e| core::mem::take(&mut e.wakeups)) {
            network_filter_scheduled(NOBODY, self.filter, 0);
        }
    }

    pub(crate) fn above_watermark(&self) {
        network_filter_above_write_buffer_high_watermark(NOBODY, self.filter);
    }

    pub(crate) fn below_watermark(&self) {
        network_filter_below_write_buffer_low_watermark(NOBODY, self.filter);
    }

    pub(crate) fn client_closes(&self) {
        network_filter_event(NOBODY, self.filter, 0);
    }
}

impl Drop for NetworkFilter {
    fn drop(&mut self) {
        network_filter_destroy(self.filter);
        network_filter_config_destroy(self.config);
        envoy(|e| {
            e.filter = None;
            e.check();
        });
    }
}

/// A connection that a listener filter looks at.
pub(crate) fn accept(config: &str) {
    let config = listener_filter_config_new(NOBODY, Buffer::of(b"declare"), Buffer::of(config.as_bytes()));
    let filter = listener_filter_new(config, NOBODY);
    assert_eq!(listener_filter_on_accept(NOBODY, filter), 0, "the next filters go on");
    listener_filter_destroy(filter);
    listener_filter_config_destroy(config);
}
