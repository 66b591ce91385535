//! Against the `thrift` crate of Apache: whatever it writes is found, whole, and error replies are what it reads.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use meltemi::{
    Codec, Decoded, Failure, FailureKind, FrameKind, Limits, NothingInFlight, Options, Peer, testing::split_invariant,
};
use meltemi_codecs::thrift::Thrift;
use proptest::{collection::vec, prelude::*};
use thrift::{
    Error,
    protocol::{
        TBinaryInputProtocol, TBinaryOutputProtocol, TCompactInputProtocol, TCompactOutputProtocol, TFieldIdentifier,
        TInputProtocol, TListIdentifier, TMapIdentifier, TMessageIdentifier, TMessageType, TOutputProtocol,
        TSetIdentifier, TStructIdentifier, TType,
    },
};

/// A value of any Thrift type.
#[derive(Debug, Clone)]
enum Value {
    Bool(bool),
    I8(i8),
    I16(i16),
    I32(i32),
    I64(i64),
    Double(f64),
    Text(String),
    Struct(Vec<Value>),
    List(Vec<i32>),
    Bools(Vec<bool>),
    Structs(Vec<Vec<Value>>),
    Set(Vec<String>),
    Map(Vec<(String, i64)>),
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i8>().prop_map(Value::I8),
        any::<i16>().prop_map(Value::I16),
        any::<i32>().prop_map(Value::I32),
        any::<i64>().prop_map(Value::I64),
        any::<f64>().prop_map(Value::Double),
        "[a-z]{0,40}".prop_map(Value::Text),
        vec(any::<i32>(), 0..20).prop_map(Value::List),
        vec(any::<bool>(), 0..20).prop_map(Value::Bools),
        vec("[a-z]{0,5}", 0..5).prop_map(Value::Set),
        vec(("[a-z]{0,5}", any::<i64>()), 0..5).prop_map(Value::Map),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Struct),
            vec(vec(inner, 0..3), 0..3).prop_map(Value::Structs),
        ]
    })
}

fn write_struct(fields: &[Value], out: &mut dyn TOutputProtocol) -> thrift::Result<()> {
    out.write_struct_begin(&TStructIdentifier::new("S"))?;
    for (index, field) in fields.iter().enumerate() {
        // Ids that lie near each other and far: compact writes both ways.
        let id = (index * index * 7 + 1) as i16;
        out.write_field_begin(&TFieldIdentifier::new("f", kind(field), id))?;
        write_value(field, out)?;
        out.write_field_end()?;
    }
    out.write_field_stop()?;
    out.write_struct_end()
}

const fn kind(value: &Value) -> TType {
    match value {
        Value::Bool(_) => TType::Bool,
        Value::I8(_) => TType::I08,
        Value::I16(_) => TType::I16,
        Value::I32(_) => TType::I32,
        Value::I64(_) => TType::I64,
        Value::Double(_) => TType::Double,
        Value::Text(_) => TType::String,
        Value::Struct(_) => TType::Struct,
        Value::List(_) | Value::Bools(_) | Value::Structs(_) => TType::List,
        Value::Set(_) => TType::Set,
        Value::Map(_) => TType::Map,
    }
}

fn write_value(value: &Value, out: &mut dyn TOutputProtocol) -> thrift::Result<()> {
    match value {
        Value::Bool(v) => out.write_bool(*v),
        Value::I8(v) => out.write_i8(*v),
        Value::I16(v) => out.write_i16(*v),
        Value::I32(v) => out.write_i32(*v),
        Value::I64(v) => out.write_i64(*v),
        Value::Double(v) => out.write_double(*v),
        Value::Text(v) => out.write_string(v),
        Value::Struct(fields) => write_struct(fields, out),
        Value::List(values) => {
            out.write_list_begin(&TListIdentifier::new(TType::I32, values.len() as i32))?;
            values.iter().try_for_each(|v| out.write_i32(*v))?;
            out.write_list_end()
        }
        Value::Bools(values) => {
            out.write_list_begin(&TListIdentifier::new(TType::Bool, values.len() as i32))?;
            values.iter().try_for_each(|v| out.write_bool(*v))?;
            out.write_list_end()
        }
        Value::Structs(values) => {
            out.write_list_begin(&TListIdentifier::new(TType::Struct, values.len() as i32))?;
            values.iter().try_for_each(|v| write_struct(v, out))?;
            out.write_list_end()
        }
        Value::Set(values) => {
            out.write_set_begin(&TSetIdentifier::new(TType::String, values.len() as i32))?;
            values.iter().try_for_each(|v| out.write_string(v))?;
            out.write_set_end()
        }
        Value::Map(values) => {
            out.write_map_begin(&TMapIdentifier::new(TType::String, TType::I64, values.len() as i32))?;
            for (key, value) in values {
                out.write_string(key)?;
                out.write_i64(*value)?;
            }
            out.write_map_end()
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Strict,
    Old,
    Compact,
}

fn message(form: Form, identifier: &TMessageIdentifier, fields: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut out: Box<dyn TOutputProtocol + '_> = match form {
        Form::Strict => Box::new(TBinaryOutputProtocol::new(&mut bytes, true)),
        Form::Old => Box::new(TBinaryOutputProtocol::new(&mut bytes, false)),
        Form::Compact => Box::new(TCompactOutputProtocol::new(&mut bytes)),
    };
    out.write_message_begin(identifier).unwrap();
    write_struct(fields, out.as_mut()).unwrap();
    out.write_message_end().unwrap();
    drop(out);
    bytes
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_be_bytes(), message].concat()
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![Just(Form::Strict), Just(Form::Old), Just(Form::Compact)]
}

fn codec() -> Thrift {
    Thrift::new(&Options::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_are_found_framed_and_unframed(
        form in form(),
        name in "[a-zA-Z]{1,20}",
        sequence in 0i32..,
        one_way in any::<bool>(),
        fields in vec(value(), 0..6),
    ) {
        let kind = if one_way { TMessageType::OneWay } else { TMessageType::Call };
        let message = message(form, &TMessageIdentifier::new(&*name, kind, sequence), &fields);
        for frame in [message.clone(), framed(&message)] {
            let transcript = split_invariant(&codec(), Peer::Client, &frame.repeat(2));
            prop_assert_eq!(transcript.error, None);
            prop_assert_eq!(transcript.bytes, [&frame[..], &frame[..]]);
            let mut connection = codec().connect(Peer::Client, &Limits::default());
            let Ok(Decoded::Frame(found)) = connection.decode(&frame, &NothingInFlight) else { panic!("no frame") };
            let kind = if one_way { FrameKind::OneWay } else { FrameKind::Request };
            prop_assert_eq!((found.kind, found.id), (kind, sequence as u64));
            prop_assert_eq!(found.metadata.method, name.as_bytes());
        }
    }

    #[test]
    fn error_replies_are_read(form in form(), name in "[a-zA-Z]{1,20}", sequence in 0i32.., text in "[ -~]{0,80}") {
        let request = framed(&message(form, &TMessageIdentifier::new(&*name, TMessageType::Call, sequence), &[]));
        let mut connection = codec().connect(Peer::Client, &Limits::default());
        let Ok(Decoded::Frame(frame)) = connection.decode(&request, &NothingInFlight) else { panic!("no frame") };
        let ticket = frame.ticket();
        let mut out = Vec::new();
        let failure = Failure { kind: FailureKind::NoRoute, message: &text };
        connection.error_reply(&ticket, &failure, &mut out).unwrap();
        prop_assert_eq!(u32::from_be_bytes([out[0], out[1], out[2], out[3]]) as usize, out.len() - 4);
        let mut reader: Box<dyn TInputProtocol + '_> = match form {
            Form::Compact => Box::new(TCompactInputProtocol::new(&out[4..])),
            Form::Strict => Box::new(TBinaryInputProtocol::new(&out[4..], true)),
            Form::Old => Box::new(TBinaryInputProtocol::new(&out[4..], false)),
        };
        let head = reader.read_message_begin().unwrap();
        prop_assert_eq!((&*head.name, head.sequence_number), (&*name, sequence));
        prop_assert!(matches!(head.message_type, TMessageType::Exception));
        let error = Error::read_application_error_from_in_protocol(reader.as_mut()).unwrap();
        prop_assert_eq!(error.kind, thrift::ApplicationErrorKind::UnknownMethod);
        prop_assert_eq!(error.message, text);
    }
}
