//! Thrift: nanoseconds to decode a frame, with its headers walked, and to rewrite it.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::hint::black_box;

use allocation_counter::measure;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meltemi::{Connection, Decoded, Limits, Mutation, NothingInFlight, Options, Peer, testing::decode_in_pieces};
use meltemi_codecs::thrift::ENTRY;

const CAPTURES: [(&str, &[u8]); 7] = [
    ("framed-binary", include_bytes!("../corpus/thrift/framed-binary.client.bin")),
    ("framed-compact", include_bytes!("../corpus/thrift/framed-compact.client.bin")),
    ("unframed-binary", include_bytes!("../corpus/thrift/unframed-binary.client.bin")),
    ("unframed-compact", include_bytes!("../corpus/thrift/unframed-compact.client.bin")),
    ("header-compact", include_bytes!("../corpus/thrift/header-compact.client.bin")),
    ("ttheader-binary", include_bytes!("../corpus/thrift/ttheader-binary.client.bin")),
    ("header-zlib", include_bytes!("../corpus/thrift/header-binary-zlib.client.bin")),
];

fn decode(connection: &mut dyn Connection, frame: &[u8]) -> usize {
    let Ok(Decoded::Frame(found)) = connection.decode(frame, &NothingInFlight) else { panic!("no frame") };
    let mut seen = found.metadata.method.len();
    found.metadata.for_each_header(|name, value| seen += name.len() + value.len());
    seen
}

fn thrift(criterion: &mut Criterion) {
    let codec = (ENTRY.build)(&Options::default()).unwrap();
    let mut mutation = Mutation::new();
    mutation.set(b"env", b"blue");
    for (name, stream) in CAPTURES {
        // The second call: a struct with strings, lists and maps.
        let frame = decode_in_pieces(codec.as_ref(), Peer::Client, &Limits::default(), stream, &[]).bytes.remove(1);
        let mut connection = codec.connect(Peer::Client, &Limits::default());
        let mut out = Vec::new();
        let mut group = criterion.benchmark_group(format!("thrift/{name}"));
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function("decode", |bencher| bencher.iter(|| decode(connection.as_mut(), black_box(&frame))));
        // A compressed message cannot get another number.
        if name != "header-zlib" {
            group.bench_function("rewrite-id", |bencher| {
                bencher.iter(|| {
                    out.clear();
                    connection.rewrite(black_box(&frame), &Mutation::new(), Some(7), &mut out).unwrap();
                });
            });
        }
        if name.contains("header") {
            group.bench_function("rewrite-header", |bencher| {
                bencher.iter(|| {
                    out.clear();
                    connection.rewrite(black_box(&frame), &mutation, None, &mut out).unwrap();
                });
            });
        }
        group.finish();
        let allocations = measure(|| {
            black_box(decode(connection.as_mut(), &frame));
        })
        .count_total;
        println!("thrift/{name}/decode            allocations: {allocations} per frame");
    }
}

criterion_group!(benches, thrift);
criterion_main!(benches);
