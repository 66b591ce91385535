//! Dubbo: nanoseconds to decode a frame, with its headers walked, and to rewrite it.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::hint::black_box;

use allocation_counter::measure;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meltemi::{Connection, Decoded, Limits, Mutation, NothingInFlight, Options, Peer, testing::decode_in_pieces};
use meltemi_codecs::dubbo::ENTRY;

/// Name, sender, capture, and which of its frames: a greeting, an object with containers, an exception's reply.
const FRAMES: [(&str, Peer, &[u8], usize); 6] = [
    ("hessian2-hello", Peer::Client, include_bytes!("../corpus/dubbo/hessian2.client.bin"), 0),
    ("hessian2-object", Peer::Client, include_bytes!("../corpus/dubbo/hessian2.client.bin"), 1),
    ("hessian2-reply", Peer::Server, include_bytes!("../corpus/dubbo/hessian2.server.bin"), 1),
    ("hessian2-exception", Peer::Server, include_bytes!("../corpus/dubbo/hessian2.server.bin"), 2),
    ("fastjson2-object", Peer::Client, include_bytes!("../corpus/dubbo/fastjson2.client.bin"), 1),
    ("fastjson2-exception", Peer::Server, include_bytes!("../corpus/dubbo/fastjson2.server.bin"), 2),
];

fn decode(connection: &mut dyn Connection, frame: &[u8], headers: bool) -> usize {
    let Ok(Decoded::Frame(found)) = connection.decode(frame, &NothingInFlight) else { panic!("no frame") };
    let mut seen = found.metadata.method.len();
    if headers {
        found.metadata.for_each_header(|name, value| seen += name.len() + value.len());
    }
    seen
}

fn dubbo(criterion: &mut Criterion) {
    let codec = (ENTRY.build)(&Options::default()).unwrap();
    let mut mutation = Mutation::new();
    mutation.set(b"env", b"blue");
    for (name, peer, stream, index) in FRAMES {
        let frame = decode_in_pieces(codec.as_ref(), peer, &Limits::default(), stream, &[]).bytes.remove(index);
        let mut connection = codec.connect(peer, &Limits::default());
        let mut out = Vec::new();
        let mut group = criterion.benchmark_group(format!("dubbo/{name}"));
        group.throughput(Throughput::Bytes(frame.len() as u64));
        for (what, headers) in [("decode", false), ("decode-headers", true)] {
            group.bench_function(what, |bencher| {
                bencher.iter(|| decode(connection.as_mut(), black_box(&frame), headers));
            });
        }
        for (what, mutation) in [("rewrite-id", &Mutation::new()), ("rewrite-attachment", &mutation)] {
            group.bench_function(what, |bencher| {
                bencher.iter(|| {
                    out.clear();
                    connection.rewrite(black_box(&frame), mutation, Some(7), &mut out).unwrap();
                });
            });
        }
        group.finish();
        let allocations = measure(|| {
            black_box(decode(connection.as_mut(), &frame, true));
        })
        .count_total;
        println!("dubbo/{name}/decode-headers            allocations: {allocations} per frame");
    }
}

criterion_group!(benches, dubbo);
criterion_main!(benches);
