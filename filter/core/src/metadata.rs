use core::fmt;

/// Up to six offsets that a codec found while decoding and needs again to walk the headers.
pub type Marks = [u32; 6];

/// Visits every header of a frame in wire order.
///
/// `block` and `marks` are what the codec gave to [`Metadata::with_headers`]. Names and values are slices of `block`
/// or static. The block was checked when it was decoded, but the function must still not panic on any bytes: it
/// stops at the first thing it does not understand.
pub type HeaderWalk = for<'b> fn(block: &'b [u8], marks: &Marks, visit: &mut dyn FnMut(&'b [u8], &'b [u8]));

/// What routing may look at: service, method, headers. Lent from the frame, never copied; headers are only walked
/// when somebody asks.
///
/// Names and values are bytes as they stand on the wire: any byte may occur in them.
#[derive(Clone, Copy)]
pub struct Metadata<'a> {
    /// The service called; empty if the protocol has none or this frame does not say.
    pub service: &'a [u8],
    /// The method called, or the command; empty if this frame does not say.
    pub method: &'a [u8],
    block: &'a [u8],
    marks: Marks,
    walk: HeaderWalk,
}

fn walk_nothing<'b>(_: &'b [u8], _: &Marks, _: &mut dyn FnMut(&'b [u8], &'b [u8])) {}

impl<'a> Metadata<'a> {
    /// Metadata of a frame that says nothing.
    pub const EMPTY: Metadata<'static> = Metadata::new(b"", b"");

    /// Metadata with a service and a method and no headers.
    pub const fn new(service: &'a [u8], method: &'a [u8]) -> Self {
        Self { service, method, block: b"", marks: [0; 6], walk: walk_nothing }
    }

    /// The same with headers: `walk` will be called with `block` and `marks`.
    pub const fn with_headers(mut self, block: &'a [u8], marks: Marks, walk: HeaderWalk) -> Self {
        self.block = block;
        self.marks = marks;
        self.walk = walk;
        self
    }

    /// Visits every header in wire order; a name may come more than once.
    pub fn for_each_header(&self, mut visit: impl FnMut(&'a [u8], &'a [u8])) {
        (self.walk)(self.block, &self.marks, &mut visit);
    }

    /// The first header of this name, compared without regard to ASCII case.
    pub fn header(&self, name: &[u8]) -> Option<&'a [u8]> {
        let mut found = None;
        self.for_each_header(|n, value| {
            if found.is_none() && n.eq_ignore_ascii_case(name) {
                found = Some(value);
            }
        });
        found
    }
}

impl fmt::Debug for Metadata<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy;
        let mut headers = Vec::new();
        self.for_each_header(|name, value| headers.push((text(name), text(value))));
        f.debug_struct("Metadata")
            .field("service", &text(self.service))
            .field("method", &text(self.method))
            .field("headers", &headers)
            .finish()
    }
}
