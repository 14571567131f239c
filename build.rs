//! How the binary of the pods is linked: it is paid for in every pod, and its resident memory is
//! mostly code (docs/performance.md).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let set_to = |name: &str, value: &str| std::env::var(name).is_ok_and(|set| set == value);
    // Folding functions with equal code is an option of lld, which is rustc's own linker here only.
    if set_to("TARGET", "x86_64-unknown-linux-gnu") && set_to("PROFILE", "release") {
        println!("cargo::rustc-link-arg-bin=meshwright-proxy=-Wl,--icf=all");
        // Relocations are read at the start of each process: packed they are a tenth. glibc 2.36 and
        // newer read them, and the image brings the one that it was built with.
        println!("cargo::rustc-link-arg-bin=meshwright-proxy=-Wl,-z,pack-relative-relocs");
    }
}
