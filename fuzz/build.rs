//! Lets a library that `c_surface` loads report its coverage to the fuzzer in the executable.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let symbols = "-Wl,--export-dynamic-symbol=__sanitizer_cov_*";
    println!("cargo::rustc-link-arg-bin=c_surface={symbols}");
}
