//! Hessian2 values and a writer of them, made from the specification and not from the code under test.

use proptest::prelude::*;

#[derive(Debug, Clone)]
pub(super) enum Hessian {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Date(i64),
    Text(String),
    Binary(Vec<u8>),
    /// With a type name or without.
    List(Option<u8>, Vec<Hessian>),
    Map(Option<u8>, Vec<(Hessian, Hessian)>),
    /// Of a class with as many fields as there are values.
    Object(Vec<Hessian>),
    Reference(u8),
}

pub(super) fn value() -> impl Strategy<Value = Hessian> {
    let leaf = prop_oneof![
        Just(Hessian::Null),
        any::<bool>().prop_map(Hessian::Bool),
        any::<i32>().prop_map(Hessian::Int),
        (-3000i32..3000).prop_map(Hessian::Int),
        any::<i64>().prop_map(Hessian::Long),
        (-3000i64..3000).prop_map(Hessian::Long),
        any::<f64>().prop_map(Hessian::Double),
        (-128i8..=127).prop_map(|n| Hessian::Double(f64::from(n))),
        any::<i64>().prop_map(Hessian::Date),
        "\\PC{0,70}".prop_map(Hessian::Text),
        prop::collection::vec(any::<u8>(), 0..1200).prop_map(Hessian::Binary),
        any::<u8>().prop_map(Hessian::Reference),
    ];
    leaf.prop_recursive(5, 60, 10, |inner| {
        prop_oneof![
            (prop::option::of(0..4u8), prop::collection::vec(inner.clone(), 0..12))
                .prop_map(|(name, values)| Hessian::List(name, values)),
            (prop::option::of(0..4u8), prop::collection::vec((inner.clone(), inner.clone()), 0..6))
                .prop_map(|(name, pairs)| Hessian::Map(name, pairs)),
            prop::collection::vec(inner, 0..20).prop_map(Hessian::Object),
        ]
    })
}

impl Hessian {
    /// The text, if it is short enough to be written in one piece.
    pub(super) fn short_text(&self) -> Option<String> {
        match self {
            Self::Text(text) if text.encode_utf16().count() < 20 => Some(text.clone()),
            _ => None,
        }
    }
}

/// Writes values, each in a form picked by the bits of `style` among those that the specification allows.
pub(super) struct Encoder {
    pub(super) out: Vec<u8>,
    style: u64,
    types: Vec<u8>,
    classes: Vec<usize>,
}

impl Encoder {
    pub(super) fn new(style: u64) -> Self {
        Self { out: Vec::new(), style, types: Vec::new(), classes: Vec::new() }
    }

    pub(super) fn put(&mut self, value: &Hessian) {
        match value {
            Hessian::Null => self.out.push(b'N'),
            Hessian::Bool(yes) => self.out.push(if *yes { b'T' } else { b'F' }),
            Hessian::Int(int) => self.int(*int),
            Hessian::Long(long) => self.long(*long),
            Hessian::Double(double) => self.double(*double),
            Hessian::Date(millis) => match i32::try_from(*millis) {
                Ok(minutes) if self.coin() => self.tagged(b'K', &minutes.to_be_bytes()),
                _ => self.tagged(b'J', &millis.to_be_bytes()),
            },
            Hessian::Text(text) => self.text(text),
            Hessian::Binary(bytes) => self.binary(bytes),
            Hessian::List(name, values) => self.list(*name, values),
            Hessian::Map(name, pairs) => {
                self.out.push(if name.is_some() { b'M' } else { b'H' });
                if let Some(name) = name {
                    self.type_name(*name);
                }
                for (key, value) in pairs {
                    self.put(key);
                    self.put(value);
                }
                self.out.push(b'Z');
            }
            Hessian::Object(fields) => self.object(fields),
            Hessian::Reference(to) => {
                self.out.push(b'Q');
                self.int(i32::from(*to));
            }
        }
    }

    fn coin(&mut self) -> bool {
        // A linear congruential generator: the property test shrinks its seed.
        self.style = self.style.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.style >> 63 == 1
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.out.push(tag);
        self.out.extend_from_slice(bytes);
    }

    fn int(&mut self, int: i32) {
        let [_, b2, b1, b0] = int.to_be_bytes();
        match int {
            -16..=47 if self.coin() => self.out.push(b0.wrapping_add(0x90)),
            -2048..=2047 if self.coin() => self.tagged(b1.wrapping_add(0xc8), &[b0]),
            -262_144..=262_143 if self.coin() => self.tagged(b2.wrapping_add(0xd4), &[b1, b0]),
            _ => self.tagged(b'I', &int.to_be_bytes()),
        }
    }

    fn long(&mut self, long: i64) {
        let [.., b3, b2, b1, b0] = long.to_be_bytes();
        match long {
            -8..=15 if self.coin() => self.out.push(b0.wrapping_add(0xe0)),
            -2048..=2047 if self.coin() => self.tagged(b1.wrapping_add(0xf8), &[b0]),
            -262_144..=262_143 if self.coin() => self.tagged(b2.wrapping_add(0x3c), &[b1, b0]),
            _ if i32::try_from(long).is_ok() => self.tagged(b'Y', &[b3, b2, b1, b0]),
            _ => self.tagged(b'L', &long.to_be_bytes()),
        }
    }

    fn double(&mut self, double: f64) {
        let whole = double as i16;
        let [high, low] = whole.to_be_bytes();
        match whole {
            _ if f64::from(whole) != double => self.tagged(b'D', &double.to_be_bytes()),
            0 if self.coin() => self.out.push(0x5b),
            1 if self.coin() => self.out.push(0x5c),
            -128..=127 if self.coin() => self.tagged(0x5d, &[low]),
            _ if self.coin() => self.tagged(0x5e, &[high, low]),
            _ => self.tagged(0x5f, &(i32::from(whole) * 1000).to_be_bytes()),
        }
    }

    fn text(&mut self, text: &str) {
        let units: Vec<u16> = text.encode_utf16().collect();
        let mut rest = units.as_slice();
        while rest.len() >= 20 && self.coin() {
            let (chunk, after) = rest.split_at(7);
            self.tagged(b'R', &[0, 7]);
            self.units(chunk);
            rest = after;
        }
        let [high, low] = (rest.len() as u16).to_be_bytes();
        match rest.len() {
            0..=31 if self.coin() => self.out.push(low),
            0..=1023 if self.coin() => self.tagged(0x30 + high, &[low]),
            _ => self.tagged(b'S', &[high, low]),
        }
        self.units(rest);
    }

    fn units(&mut self, units: &[u16]) {
        for &unit in units {
            let six = |shift: u16| 0x80 | ((unit >> shift) & 0x3f) as u8;
            match unit {
                0..=0x7f => self.out.push(unit as u8),
                0x80..=0x7ff => self.out.extend_from_slice(&[0xc0 | (unit >> 6) as u8, six(0)]),
                _ => self.out.extend_from_slice(&[0xe0 | (unit >> 12) as u8, six(6), six(0)]),
            }
        }
    }

    fn binary(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while rest.len() > 100 && self.coin() {
            let (chunk, after) = rest.split_at(100);
            self.tagged(b'A', &[0, 100]);
            self.out.extend_from_slice(chunk);
            rest = after;
        }
        let [high, low] = (rest.len() as u16).to_be_bytes();
        match rest.len() {
            0..=15 if self.coin() => self.out.push(0x20 + low),
            0..=1023 if self.coin() => self.tagged(0x34 + high, &[low]),
            _ => self.tagged(b'B', &[high, low]),
        }
        self.out.extend_from_slice(rest);
    }

    fn list(&mut self, name: Option<u8>, values: &[Hessian]) {
        let length = values.len() as i32;
        let mut end = false;
        match (values.len(), name) {
            (0..=7, _) if self.coin() => {
                self.out.push(if name.is_some() { 0x70 } else { 0x78 } + length as u8);
                name.into_iter().for_each(|name| self.type_name(name));
            }
            _ if self.coin() => {
                self.out.push(if name.is_some() { b'V' } else { b'X' });
                name.into_iter().for_each(|name| self.type_name(name));
                self.int(length);
            }
            _ => {
                self.out.push(if name.is_some() { b'U' } else { b'W' });
                name.into_iter().for_each(|name| self.type_name(name));
                end = true;
            }
        }
        for value in values {
            self.put(value);
        }
        if end {
            self.out.push(b'Z');
        }
    }

    /// The name of a type, or its number if it was named before.
    fn type_name(&mut self, name: u8) {
        match self.types.iter().position(|known| *known == name) {
            Some(number) => self.int(number as i32),
            None => {
                self.types.push(name);
                self.text(["java.util.List", "[int", "a.B", ""][usize::from(name)]);
            }
        }
    }

    fn object(&mut self, fields: &[Hessian]) {
        let class = self.classes.iter().position(|known| *known == fields.len()).unwrap_or_else(|| {
            self.out.push(b'C');
            self.text(&format!("peer.Class{}", fields.len()));
            self.int(fields.len() as i32);
            (0..fields.len()).for_each(|field| self.text(&format!("field{field}")));
            self.classes.push(fields.len());
            self.classes.len() - 1
        });
        match class {
            0..=15 if self.coin() => self.out.push(0x60 + class as u8),
            _ => {
                self.out.push(b'O');
                self.int(class as i32);
            }
        }
        for field in fields {
            self.put(field);
        }
    }
}
