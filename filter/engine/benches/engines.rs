//! Nanoseconds and allocations of a call through the engines.

#![allow(missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use allocation_counter::measure;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meltemi_core::Ordering;
use support::{Relayed, Request};

fn bench(criterion: &mut Criterion, name: &str, body: usize, mut call: impl FnMut()) {
    const CALLS: u64 = 1_000;
    (0..CALLS).for_each(|_| call());
    let counted = measure(|| (0..CALLS).for_each(|_| call()));
    // Two frames a call.
    println!("{name}/{body}: {:.3} allocations a frame", counted.count_total as f64 / (2 * CALLS) as f64);
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(2));
    group.bench_function(body.to_string(), |bencher| bencher.iter(&mut call));
    group.finish();
}

fn engines(criterion: &mut Criterion) {
    for body in [100, 10_000] {
        for (name, ordering) in [("ordered", Ordering::Ordered), ("multiplexed", Ordering::Multiplexed)] {
            let mut request = Request::new(ordering, body);
            bench(criterion, &format!("inlet-outlet/{name}"), body, || request.call());
            let mut relayed = Relayed::new(ordering, body);
            bench(criterion, &format!("relay/{name}"), body, || relayed.call());
        }
    }
}

criterion_group!(benches, engines);
criterion_main!(benches);
