//! Packs the guest's `/init` into an initial RAM file system: `novacron-initrd INIT OUTPUT`. `make guest` calls it.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("novacron-initrd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [init, output] = &arguments[..] else { bail!("usage: novacron-initrd INIT OUTPUT") };
    let init = std::fs::read(init).with_context(|| format!("reading {}", init.display()))?;
    std::fs::write(output, novacron_testbed::initramfs::pack(&init))
        .with_context(|| format!("writing {}", output.display()))
}
