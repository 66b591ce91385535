/// Upper bounds on what a peer may make us hold or walk. A codec checks a length against these *before* it
/// allocates or waits for that many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in one frame. Default 16 MiB.
    pub max_frame: usize,
    /// Bytes of all header names and values of one frame. Default 48 KiB: Envoy takes 60 KiB of HTTP headers.
    pub max_header_bytes: usize,
    /// Number of headers of one frame. Default 80: Envoy takes 100 HTTP headers.
    pub max_headers: usize,
    /// Nesting of values. Default 64.
    pub max_depth: usize,
    /// Elements walked in one frame. Default 16,777,216: one a byte, so that it is the frame's size that counts.
    pub max_elements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame: 16 * 1024 * 1024,
            max_header_bytes: 48 * 1024,
            max_headers: 80,
            max_depth: 64,
            max_elements: 16 * 1024 * 1024,
        }
    }
}
