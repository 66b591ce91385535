//! Steady state: a call that passes through the engines allocates nothing.

mod support;

use allocation_counter::measure;
use meltemi_core::Ordering;
use support::{Relayed, Request};

const ORDERS: [Ordering; 2] = [Ordering::Ordered, Ordering::Multiplexed];

fn allocates_nothing(mut call: impl FnMut()) {
    (0..200).for_each(|_| call());
    let counted = measure(|| (0..1_000).for_each(|_| call()));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn through_inlet_and_outlet() {
    for ordering in ORDERS {
        for body in [0, 2_000] {
            let mut request = Request::new(ordering, body);
            allocates_nothing(|| request.call());
        }
    }
}

#[test]
fn through_the_relay() {
    for ordering in ORDERS {
        for body in [0, 2_000] {
            let mut relayed = Relayed::new(ordering, body);
            allocates_nothing(|| relayed.call());
        }
    }
}
