//! `novacron-lab`: a network lab to type commands in.

use std::process::ExitCode;

fn main() -> ExitCode {
    novacron_lab::run()
}
