//! Packs the guest's `/init` into an initial RAM file system: `novacron-initrd INIT OUTPUT MODULES`, the last a
//! directory of kernel modules. `make guest` calls it.

use std::fs;
use std::path::Path;
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
    let [init, output, modules] = &arguments[..] else { bail!("usage: novacron-initrd INIT OUTPUT MODULES") };
    let init = fs::read(init).with_context(|| format!("reading {}", init.display()))?;
    let modules = read_modules(Path::new(modules))?;
    fs::write(output, novacron_testbed::initramfs::pack(&init, &modules))
        .with_context(|| format!("writing {}", output.display()))
}

/// Name and contents of each module, in the order of their names.
fn read_modules(directory: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut modules = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| directory.display().to_string())?.path();
        let module = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        modules.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), module));
    }
    modules.sort();
    Ok(modules)
}
