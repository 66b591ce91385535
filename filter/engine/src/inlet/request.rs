use meltemi_core::{FailureKind, Frame, FrameKind};

use super::InletShared;
use crate::{
    h2::HeaderWriter,
    http::{HeaderStore, represent},
    names,
    outlet::decimal,
};

/// Names, values and Envoy's overhead of the headers that every request carries: kept free for them.
const OWN_HEADERS: usize = 12;

/// A request's headers in the making; the memory is used again.
#[derive(Default)]
pub(super) struct RequestHead {
    path: Vec<u8>,
    metadata: HeaderStore,
    service: Vec<u8>,
    method: Vec<u8>,
    /// Empty: the host has no name for the connection.
    pub(super) connection: Vec<u8>,
}

impl RequestHead {
    /// Service and method of the last request, as they stand in the headers.
    pub(super) fn current(&self) -> (&[u8], &[u8]) {
        (&self.service, &self.method)
    }

    /// Turns the frame's metadata into headers.
    ///
    /// # Errors
    /// `TooLarge` if they are more than Envoy would take.
    pub(super) fn read(&mut self, frame: &Frame<'_>, shared: &InletShared) -> Result<(), FailureKind> {
        let (metadata, limits) = (&frame.metadata, &shared.limits);
        // Before they are written, longer still, into buffers that live as long as the connection.
        if metadata.service.len().saturating_add(metadata.method.len()) > limits.max_header_bytes {
            return Err(FailureKind::TooLarge);
        }
        self.path.clear();
        names::path_into(metadata.service, metadata.method, &mut self.path);
        for (text, out) in [(metadata.service, &mut self.service), (metadata.method, &mut self.method)] {
            out.clear();
            names::escape_value_into(text, out);
        }
        self.metadata.clear();
        represent(metadata, &shared.pass, &mut self.metadata);
        let bytes = [self.path.len(), self.service.len(), self.method.len(), self.metadata.byte_len()];
        let bytes = bytes.into_iter().fold(0usize, usize::saturating_add);
        let count = self.metadata.len().saturating_add(OWN_HEADERS);
        if bytes > limits.max_header_bytes || count > limits.max_headers.saturating_add(OWN_HEADERS) {
            return Err(FailureKind::TooLarge);
        }
        Ok(())
    }

    pub(super) fn write(&self, frame: &Frame<'_>, protocol: &str, authority: &[u8], to: &mut HeaderWriter<'_>) {
        let mut digits = [0u8; 20];
        to.push(b":method", b"POST");
        to.push(b":scheme", b"http");
        to.push(b":authority", authority);
        to.push(b":path", &self.path);
        to.push(b"content-length", decimal(frame.bytes.len(), &mut digits));
        to.push(names::PROTOCOL.as_bytes(), protocol.as_bytes());
        if !self.service.is_empty() {
            to.push(names::SERVICE.as_bytes(), &self.service);
        }
        if !self.method.is_empty() {
            to.push(names::METHOD.as_bytes(), &self.method);
        }
        if !self.connection.is_empty() {
            to.push(names::CONNECTION.as_bytes(), &self.connection);
        }
        if frame.kind == FrameKind::OneWay {
            to.push(names::KIND.as_bytes(), names::ONE_WAY.as_bytes());
        }
        for (name, value) in self.metadata.iter() {
            to.push(name, value);
        }
    }
}
