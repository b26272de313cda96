//! Entry point. 
fn main() {}
