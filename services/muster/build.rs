//! Links the program small where it is optimized. It holds every service and every agent, and an image has to stay below 60 MB.
//!
//! Functions that were compiled to the same code are kept once, which Rust allows: most are instances of generics that several
//! crates have made for themselves. Addresses that are to be filled in when the program starts are kept as a table of bits, which
//! glibc knows since 2.36. Both are LLD's, the linker of the toolchain on this platform; others link as they do.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let has_lld = is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu");
    if has_lld && !is("OPT_LEVEL", "0") {
        for argument in ["--icf=all", "-z,pack-relative-relocs"] {
            println!("cargo::rustc-link-arg-bins=-Wl,{argument}");
        }
    }
}
