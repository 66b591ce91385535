//! Bytes in pieces: what a network may do to them, for tests.

/// Cuts all bytes of a scenario, in whatever direction they go.
#[derive(Debug, Clone)]
pub(crate) struct Cutter {
    piece: usize,
    cut: Option<usize>,
    seen: usize,
}

impl Cutter {
    /// In pieces of this size.
    pub(crate) fn pieces(piece: usize) -> Self {
        Self { piece: piece.max(1), cut: None, seen: 0 }
    }

    /// In two, before the byte of this number.
    fn at(cut: usize) -> Self {
        Self { piece: usize::MAX, cut: Some(cut), seen: 0 }
    }

    pub(crate) fn cut<'a>(&mut self, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let cut = self.cut.and_then(|cut| cut.checked_sub(self.seen)).filter(|cut| (1..bytes.len()).contains(cut));
        self.seen += bytes.len();
        match cut {
            Some(cut) => vec![&bytes[..cut], &bytes[cut..]],
            None => bytes.chunks(self.piece).collect(),
        }
    }
}

/// Runs a scenario whole, byte by byte, in other pieces, and cut in two at every place. It gives back its cutter.
pub(crate) fn in_all_cuttings(scenario: impl Fn(Cutter) -> Cutter) {
    let whole = scenario(Cutter::pieces(usize::MAX));
    for piece in [1, 2, 3, 5, 7, 11, 16, 31] {
        scenario(Cutter::pieces(piece));
    }
    for cut in 1..whole.seen {
        scenario(Cutter::at(cut));
    }
}
