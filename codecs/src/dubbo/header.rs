use meltemi::DecodeError;

/// First bytes of every frame.
pub(super) const MAGIC: [u8; 2] = [0xda, 0xbb];
/// Bytes of a header.
pub(super) const LENGTH: usize = 16;
/// Status of a reply that carries a result.
pub(super) const OK: u8 = 20;

const REQUEST: u8 = 0x80;
const TWO_WAY: u8 = 0x40;
const EVENT: u8 = 0x20;
const SERIALIZATION: u8 = 0x1f;

/// What the 16 bytes before a body say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) flags: u8,
    /// Of replies; 0 in requests.
    pub(super) status: u8,
    pub(super) id: u64,
    /// Bytes of the body.
    pub(super) body: u32,
}

/// What the start of a buffer is.
pub(super) enum Start {
    Header(Header),
    /// This many more bytes are needed to tell.
    Short(usize),
}

impl Header {
    /// Reads the header of the frame at the start of `buf`; tells bytes that are no Dubbo as early as it can.
    pub(super) fn read(buf: &[u8]) -> Result<Start, DecodeError> {
        if !buf.iter().zip(&MAGIC).all(|(got, want)| got == want) {
            return Err(DecodeError::malformed("not Dubbo: the magic DA BB is missing", 0));
        }
        let Some(&head) = buf.first_chunk::<LENGTH>() else {
            // First the magic: what is no Dubbo shall be told so, and not waited for.
            let wanted = if buf.len() < MAGIC.len() { MAGIC.len() } else { LENGTH };
            return Ok(Start::Short(wanted.saturating_sub(buf.len()).max(1)));
        };
        let [_, _, flags, status, i7, i6, i5, i4, i3, i2, i1, i0, l3, l2, l1, l0] = head;
        let body = u32::from_be_bytes([l3, l2, l1, l0]);
        Ok(Start::Header(Self { flags, status, id: u64::from_be_bytes([i7, i6, i5, i4, i3, i2, i1, i0]), body }))
    }

    /// The header of the answer to the frame with this header.
    pub(super) const fn reply(&self, status: u8) -> Self {
        Self { flags: self.flags & (SERIALIZATION | EVENT), status, id: self.id, body: 0 }
    }

    /// The same with a body in another serialization.
    pub(super) const fn in_serialization(mut self, serialization: u8) -> Self {
        self.flags = (self.flags & !SERIALIZATION) | (serialization & SERIALIZATION);
        self
    }

    /// The header of an event that we send: a heartbeat wants an answer, others do not.
    pub(super) const fn event(serialization: u8, wants_answer: bool, body: u32) -> Self {
        let two_way = if wants_answer { TWO_WAY } else { 0 };
        Self { flags: REQUEST | EVENT | two_way | (serialization & SERIALIZATION), status: 0, id: 0, body }
    }

    /// Appends the 16 bytes.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[self.flags, self.status]);
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&self.body.to_be_bytes());
    }

    /// Bytes of the whole frame.
    pub(super) fn frame(&self) -> u64 {
        u64::from(self.body).saturating_add(LENGTH as u64)
    }

    /// The length is negative, as Java reads it: where the frame ends is not known.
    pub(super) fn is_endless(&self) -> bool {
        i32::try_from(self.body).is_err()
    }

    pub(super) const fn is_request(&self) -> bool {
        self.flags & REQUEST != 0
    }

    pub(super) const fn is_two_way(&self) -> bool {
        self.flags & TWO_WAY != 0
    }

    pub(super) const fn is_event(&self) -> bool {
        self.flags & EVENT != 0
    }

    pub(super) const fn serialization(&self) -> u8 {
        self.flags & SERIALIZATION
    }
}

/// Names of serializations by number, as `Constants` and the extensions of Java Dubbo name them.
const SERIALIZATIONS: [&str; 32] = [
    "0",
    "1",
    "hessian2",
    "java",
    "compactedjava",
    "5",
    "fastjson",
    "nativejava",
    "kryo",
    "fst",
    "native-hessian",
    "avro",
    "protostuff",
    "13",
    "14",
    "15",
    "gson",
    "17",
    "jackson",
    "19",
    "20",
    "protobuf-json",
    "protobuf",
    "fastjson2",
    "24",
    "kryo2",
    "26",
    "msgpack",
    "fury",
    "29",
    "30",
    "custom-message-pack",
];

/// The name of the serialization that a header's flags say, or its number if it has none.
pub(super) fn serialization_name(flags: u8) -> &'static str {
    SERIALIZATIONS.get(usize::from(flags & SERIALIZATION)).copied().unwrap_or_default()
}

/// The serialization of this name, or with this number.
pub(super) fn serialization_number(name: &str) -> Option<u8> {
    let number = SERIALIZATIONS.iter().position(|known| *known == name).or_else(|| name.parse().ok())?;
    u8::try_from(number).ok().filter(|number| *number <= SERIALIZATION)
}
