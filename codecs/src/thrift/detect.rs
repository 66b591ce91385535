//! Which transport a message has, from its first bytes.

use super::message::{BINARY_MAGIC, COMPACT_MAGIC};

/// What surrounds a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Framed,
    Unframed,
    Header,
    TtHeader,
}

/// Answer of [`transport`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detected {
    Transport(Transport),
    /// Old binary has no magic: this is what it most likely is.
    Guess(Transport),
    NeedMore(usize),
    Nothing,
}

/// Magic behind the length of a THeader frame.
pub(super) const HEADER_MAGIC: [u8; 2] = [0x0f, 0xff];
/// Magic behind the length of a TTHeader frame.
pub(super) const TTHEADER_MAGIC: [u8; 2] = [0x10, 0x00];

/// Longest method name by which an old binary message is recognised.
const MAX_OLD_NAME: u32 = 0xffff;

/// Detects the transport of the message that starts with `head`.
pub(super) fn transport(head: &[u8]) -> Detected {
    match *head {
        [b0, b1, ..] if [b0, b1] == BINARY_MAGIC => Detected::Transport(Transport::Unframed),
        [COMPACT_MAGIC, ..] => Detected::Transport(Transport::Unframed),
        [l3, l2, l1, l0, n3, n2, n1, n0, ..] => {
            let (length, next) = (u32::from_be_bytes([l3, l2, l1, l0]), u32::from_be_bytes([n3, n2, n1, n0]));
            match [n3, n2] {
                HEADER_MAGIC => Detected::Transport(Transport::Header),
                TTHEADER_MAGIC => Detected::Transport(Transport::TtHeader),
                BINARY_MAGIC => Detected::Transport(Transport::Framed),
                [COMPACT_MAGIC, _] => Detected::Transport(Transport::Framed),
                // Old binary: the message starts with the name's length. Behind a frame's length that is a small number,
                // without a frame the name itself, which is text.
                _ if next <= MAX_OLD_NAME && next < length => Detected::Guess(Transport::Framed),
                [first, _] if length <= MAX_OLD_NAME && (first.is_ascii_alphabetic() || first == b'_') => {
                    Detected::Guess(Transport::Unframed)
                }
                _ => Detected::Nothing,
            }
        }
        _ => Detected::NeedMore(8usize.saturating_sub(head.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_told_apart() {
        let found = |head: &str| transport(&hex::decode(head).unwrap());
        assert_eq!(found("80010001"), Detected::Transport(Transport::Unframed));
        assert_eq!(found("8221"), Detected::Transport(Transport::Unframed));
        assert_eq!(found("0000001580010001"), Detected::Transport(Transport::Framed));
        assert_eq!(found("0000001582210005"), Detected::Transport(Transport::Framed));
        assert_eq!(found("000000150000000568"), Detected::Guess(Transport::Framed));
        assert_eq!(found("0000000568656c6c6f"), Detected::Guess(Transport::Unframed));
        assert_eq!(found("000000460fff0000"), Detected::Transport(Transport::Header));
        assert_eq!(found("0000004610000000"), Detected::Transport(Transport::TtHeader));
        assert_eq!(found("0000"), Detected::NeedMore(6));
        assert_eq!(transport(b"GET / HTTP/1.1"), Detected::Nothing);
        assert_eq!(transport(b"PRI * HTTP/2.0"), Detected::Nothing);
    }
}
