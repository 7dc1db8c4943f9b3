//! The `playhead` binary.
fn main() {}
