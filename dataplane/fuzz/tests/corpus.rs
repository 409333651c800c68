//! Every kept input still means what it was kept for: none of them may fail.

use std::path::Path;

fn run_all(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("a corpus") {
        run(&std::fs::read(entry.expect("an entry").path()).expect("a file"));
        count += 1;
    }
    assert!(count > 0, "{target} keeps nothing");
}

#[test]
fn wire() {
    run_all("wire", novacron_fuzz::wire::run);
}

#[test]
fn page() {
    run_all("page", novacron_fuzz::page::run);
}

#[test]
fn session() {
    run_all("session", novacron_fuzz::session::run);
}
