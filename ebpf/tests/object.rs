//! The embedded object is what its source compiles to.

use std::process::Command;

#[test]
fn the_object_is_what_its_source_compiles_to() {
    let tools = ["clang-14", "llvm-strip-14", "gcc"];
    let missing: Vec<&str> =
        tools.into_iter().filter(|tool| Command::new(tool).arg("--version").output().is_err()).collect();
    if !missing.is_empty() {
        eprintln!("skipped: {} not installed (`make setup` installs them)", missing.join(", "));
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let built = scratch.path().join("probe.bpf.o");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/build.sh");
    let output = Command::new(script).arg(&built).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let built = std::fs::read(&built).unwrap();
    assert!(
        built == novacron_ebpf::OBJECT,
        "ebpf/bpf/probe.bpf.o is not what its source compiles to ({} and {} bytes): run `make ebpf` and commit it",
        novacron_ebpf::OBJECT.len(),
        built.len()
    );
}
