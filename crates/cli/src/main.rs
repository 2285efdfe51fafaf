//! tidegate: dev, bench, schema.

fn main() {}
