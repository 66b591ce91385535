/// How a connection is to be closed, once everything written so far was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// After the bytes written have been sent.
    Flush,
    /// At once: what was sent is already beyond repair.
    Now,
}
