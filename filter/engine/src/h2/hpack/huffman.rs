//! The Huffman code of HPACK (RFC 7541, appendix B): decoding, four bits at a time.

use std::sync::LazyLock;

use super::HpackError;

/// Appends what `coded` stands for to `out`, at most `max` bytes; an error if it is no Huffman text or too long.
pub(super) fn decode(coded: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), HpackError> {
    let table = &**TABLE;
    let start = out.len();
    let mut state = 0u16;
    for byte in coded {
        for nibble in [byte >> 4, byte & 0x0f] {
            let steps = table.steps.get(usize::from(state)).ok_or(HpackError::Invalid)?;
            let step = steps.get(usize::from(nibble)).ok_or(HpackError::Invalid)?;
            match step.emit {
                Emit::Nothing => {}
                Emit::Symbol(symbol) => out.push(symbol),
                Emit::Invalid => return Err(HpackError::Invalid),
            }
            state = step.next;
        }
        if out.len().saturating_sub(start) > max {
            return Err(HpackError::TooLarge);
        }
    }
    // The last bits must be the start of the end-of-string code, which is all ones, and fewer than eight.
    if table.may_end.get(usize::from(state)).is_some_and(|may| *may) { Ok(()) } else { Err(HpackError::Invalid) }
}

#[derive(Clone, Copy)]
struct Step {
    next: u16,
    emit: Emit,
}

#[derive(Clone, Copy)]
enum Emit {
    Nothing,
    Symbol(u8),
    Invalid,
}

/// Inner nodes of the code's tree; 257 leaves make 256 of them.
const NODES: usize = 256;
/// A child: an inner node below this, a leaf's symbol above.
const LEAF: u16 = 1 << 15;

type Tree = [[u16; 2]; NODES];

struct Table {
    /// By inner node, and the four bits that follow.
    steps: [[Step; 16]; NODES],
    /// Inner nodes that a text may end in.
    may_end: [bool; NODES],
}

/// Made at first use, in memory of its own: otherwise it is 16 kB of what an Envoy loads as a plugin in Wasm.
static TABLE: LazyLock<Box<Table>> = LazyLock::new(|| {
    let tree = tree();
    Box::new(Table { steps: steps(&tree), may_end: may_end(&tree) })
});

/// Codes of one length follow each other in the order of their symbols, and longer ones follow shorter ones.
// Nothing that comes over a wire: the same each time, and in a test.
#[allow(clippy::indexing_slicing)]
fn tree() -> Tree {
    let mut tree = [[0u16; 2]; NODES];
    let (mut used, mut code) = (1, 0u32);
    for bits in 1..=MOST_BITS {
        code <<= 1;
        for (symbol, _) in (0u16..).zip(LENGTHS).filter(|(_, length)| *length == bits) {
            let mut node = 0;
            for bit in (1..bits).rev() {
                let child = &mut tree[node][(code >> bit & 1) as usize];
                if *child == 0 {
                    *child = used;
                    used += 1;
                }
                node = usize::from(*child);
            }
            tree[node][(code & 1) as usize] = LEAF | symbol;
            code += 1;
        }
    }
    tree
}

#[allow(clippy::indexing_slicing)]
fn steps(tree: &Tree) -> [[Step; 16]; NODES] {
    let mut steps = [[Step { next: 0, emit: Emit::Nothing }; 16]; NODES];
    for (state, of_state) in (0u16..).zip(&mut steps) {
        for (nibble, step) in of_state.iter_mut().enumerate() {
            step.next = state;
            for bit in (0..4).rev() {
                let child = tree[usize::from(step.next)][nibble >> bit & 1];
                step.next = child;
                if child & LEAF != 0 {
                    let symbol = child & !LEAF;
                    // Codes have at least five bits, so a nibble ends at most one; that of the end of the string has no byte.
                    step.emit = u8::try_from(symbol).map_or(Emit::Invalid, Emit::Symbol);
                    step.next = 0;
                }
            }
        }
    }
    steps
}

#[allow(clippy::indexing_slicing)]
fn may_end(tree: &Tree) -> [bool; NODES] {
    let mut may_end = [false; NODES];
    let mut node = 0;
    for _ in 0..8 {
        may_end[node] = true;
        node = usize::from(tree[node][1]);
    }
    may_end
}

/// Bits of the longest codes.
const MOST_BITS: u8 = 30;

/// Bits of each symbol's code; the last symbol is the end of the string.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
    28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6,
    12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15,
    5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20,
    22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22,
    23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26,
    27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The RFC's table: code and its length in bits, by symbol; the last is the end of the string.
    #[rustfmt::skip]
    const CODES: [(u32, u8); 257] = [
        (0x1ff8, 13), (0x7fffd8, 23), (0xfffffe2, 28), (0xfffffe3, 28), (0xfffffe4, 28), (0xfffffe5, 28), (0xfffffe6, 28),
        (0xfffffe7, 28), (0xfffffe8, 28), (0xffffea, 24), (0x3ffffffc, 30), (0xfffffe9, 28), (0xfffffea, 28),
        (0x3ffffffd, 30), (0xfffffeb, 28), (0xfffffec, 28), (0xfffffed, 28), (0xfffffee, 28), (0xfffffef, 28),
        (0xffffff0, 28), (0xffffff1, 28), (0xffffff2, 28), (0x3ffffffe, 30), (0xffffff3, 28), (0xffffff4, 28),
        (0xffffff5, 28), (0xffffff6, 28), (0xffffff7, 28), (0xffffff8, 28), (0xffffff9, 28), (0xffffffa, 28),
        (0xffffffb, 28), (0x14, 6), (0x3f8, 10), (0x3f9, 10), (0xffa, 12), (0x1ff9, 13), (0x15, 6), (0xf8, 8),
        (0x7fa, 11), (0x3fa, 10), (0x3fb, 10), (0xf9, 8), (0x7fb, 11), (0xfa, 8), (0x16, 6), (0x17, 6), (0x18, 6),
        (0x0, 5), (0x1, 5), (0x2, 5), (0x19, 6), (0x1a, 6), (0x1b, 6), (0x1c, 6), (0x1d, 6), (0x1e, 6), (0x1f, 6),
        (0x5c, 7), (0xfb, 8), (0x7ffc, 15), (0x20, 6), (0xffb, 12), (0x3fc, 10), (0x1ffa, 13), (0x21, 6), (0x5d, 7),
        (0x5e, 7), (0x5f, 7), (0x60, 7), (0x61, 7), (0x62, 7), (0x63, 7), (0x64, 7), (0x65, 7), (0x66, 7), (0x67, 7),
        (0x68, 7), (0x69, 7), (0x6a, 7), (0x6b, 7), (0x6c, 7), (0x6d, 7), (0x6e, 7), (0x6f, 7), (0x70, 7), (0x71, 7),
        (0x72, 7), (0xfc, 8), (0x73, 7), (0xfd, 8), (0x1ffb, 13), (0x7fff0, 19), (0x1ffc, 13), (0x3ffc, 14), (0x22, 6),
        (0x7ffd, 15), (0x3, 5), (0x23, 6), (0x4, 5), (0x24, 6), (0x5, 5), (0x25, 6), (0x26, 6), (0x27, 6), (0x6, 5),
        (0x74, 7), (0x75, 7), (0x28, 6), (0x29, 6), (0x2a, 6), (0x7, 5), (0x2b, 6), (0x76, 7), (0x2c, 6), (0x8, 5),
        (0x9, 5), (0x2d, 6), (0x77, 7), (0x78, 7), (0x79, 7), (0x7a, 7), (0x7b, 7), (0x7ffe, 15), (0x7fc, 11),
        (0x3ffd, 14), (0x1ffd, 13), (0xffffffc, 28), (0xfffe6, 20), (0x3fffd2, 22), (0xfffe7, 20), (0xfffe8, 20),
        (0x3fffd3, 22), (0x3fffd4, 22), (0x3fffd5, 22), (0x7fffd9, 23), (0x3fffd6, 22), (0x7fffda, 23), (0x7fffdb, 23),
        (0x7fffdc, 23), (0x7fffdd, 23), (0x7fffde, 23), (0xffffeb, 24), (0x7fffdf, 23), (0xffffec, 24), (0xffffed, 24),
        (0x3fffd7, 22), (0x7fffe0, 23), (0xffffee, 24), (0x7fffe1, 23), (0x7fffe2, 23), (0x7fffe3, 23), (0x7fffe4, 23),
        (0x1fffdc, 21), (0x3fffd8, 22), (0x7fffe5, 23), (0x3fffd9, 22), (0x7fffe6, 23), (0x7fffe7, 23), (0xffffef, 24),
        (0x3fffda, 22), (0x1fffdd, 21), (0xfffe9, 20), (0x3fffdb, 22), (0x3fffdc, 22), (0x7fffe8, 23), (0x7fffe9, 23),
        (0x1fffde, 21), (0x7fffea, 23), (0x3fffdd, 22), (0x3fffde, 22), (0xfffff0, 24), (0x1fffdf, 21), (0x3fffdf, 22),
        (0x7fffeb, 23), (0x7fffec, 23), (0x1fffe0, 21), (0x1fffe1, 21), (0x3fffe0, 22), (0x1fffe2, 21), (0x7fffed, 23),
        (0x3fffe1, 22), (0x7fffee, 23), (0x7fffef, 23), (0xfffea, 20), (0x3fffe2, 22), (0x3fffe3, 22), (0x3fffe4, 22),
        (0x7ffff0, 23), (0x3fffe5, 22), (0x3fffe6, 22), (0x7ffff1, 23), (0x3ffffe0, 26), (0x3ffffe1, 26), (0xfffeb, 20),
        (0x7fff1, 19), (0x3fffe7, 22), (0x7ffff2, 23), (0x3fffe8, 22), (0x1ffffec, 25), (0x3ffffe2, 26), (0x3ffffe3, 26),
        (0x3ffffe4, 26), (0x7ffffde, 27), (0x7ffffdf, 27), (0x3ffffe5, 26), (0xfffff1, 24), (0x1ffffed, 25),
        (0x7fff2, 19), (0x1fffe3, 21), (0x3ffffe6, 26), (0x7ffffe0, 27), (0x7ffffe1, 27), (0x3ffffe7, 26),
        (0x7ffffe2, 27), (0xfffff2, 24), (0x1fffe4, 21), (0x1fffe5, 21), (0x3ffffe8, 26), (0x3ffffe9, 26),
        (0xffffffd, 28), (0x7ffffe3, 27), (0x7ffffe4, 27), (0x7ffffe5, 27), (0xfffec, 20), (0xfffff3, 24), (0xfffed, 20),
        (0x1fffe6, 21), (0x3fffe9, 22), (0x1fffe7, 21), (0x1fffe8, 21), (0x7ffff3, 23), (0x3fffea, 22), (0x3fffeb, 22),
        (0x1ffffee, 25), (0x1ffffef, 25), (0xfffff4, 24), (0xfffff5, 24), (0x3ffffea, 26), (0x7ffff4, 23),
        (0x3ffffeb, 26), (0x7ffffe6, 27), (0x3ffffec, 26), (0x3ffffed, 26), (0x7ffffe7, 27), (0x7ffffe8, 27),
        (0x7ffffe9, 27), (0x7ffffea, 27), (0x7ffffeb, 27), (0xffffffe, 28), (0x7ffffec, 27), (0x7ffffed, 27),
        (0x7ffffee, 27), (0x7ffffef, 27), (0x7fffff0, 27), (0x3ffffee, 26), (0x3fffffff, 30),
    ];

    /// The naive encoder, bit by bit.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits: Vec<u8> = Vec::new();
        for byte in text {
            let (code, length) = CODES[usize::from(*byte)];
            bits.extend((0..length).rev().map(|bit| (code >> bit & 1) as u8));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push(1);
        }
        bits.chunks(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | bit)).collect()
    }

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(coded, 1000, &mut out).ok().map(|()| out)
    }

    #[test]
    fn every_symbol_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encode(&all)), Some(all));
        for byte in 0..=255 {
            assert_eq!(decoded(&encode(&[byte])), Some(vec![byte]));
        }
    }

    #[test]
    fn rfc_7541_c_4_1() {
        let coded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&coded).as_deref(), Some(&b"www.example.com"[..]));
    }

    #[test]
    fn bad_endings_are_refused() {
        // Zeros as padding, a whole byte of padding, the end-of-string code, more than allowed.
        assert_eq!(decoded(&[0x18]), None);
        assert_eq!(decoded(&[0xff]), None);
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(decode(&encode(b"aaaa"), 3, &mut Vec::new()), Err(HpackError::TooLarge));
    }
}
