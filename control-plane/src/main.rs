//! meltemi
fn main() {}
