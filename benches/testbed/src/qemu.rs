//! A hypervisor process with our guest in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use qapi::qmp;

use crate::limits::EXIT_WAIT;
use crate::process::Process;
use crate::{Guest, GuestOptions, Qmp, Scratch, Serial, artefact};

/// The emulator, found on the PATH. `make setup` installs it.
const PROGRAM: &str = "qemu-system-x86_64";

/// What machine to start. A source and its destination need the same.
#[derive(Clone, Debug)]
pub struct QemuOptions {
    /// The guest's memory, MiB.
    pub memory_mib: u32,
    /// What the guest does.
    pub guest: GuestOptions,
    /// More arguments for QEMU.
    pub extra: Vec<String>,
    /// Words before its command line; see [`Process::start_behind`].
    pub prefix: Vec<String>,
}

impl Default for QemuOptions {
    fn default() -> Self {
        Self { memory_mib: 256, guest: GuestOptions::default(), extra: Vec::new(), prefix: Vec::new() }
    }
}

impl QemuOptions {
    /// A machine for a guest of this workload: its memory, and its disk where it needs one.
    ///
    /// # Errors
    /// When the workload needs the guest's disk image and there is none: says what to run.
    pub fn for_workload(guest: &GuestOptions) -> Result<Self> {
        if guest.workload.needs_image() {
            artefact::image()?;
        }
        let memory_mib = guest.workload.default_memory_mib().max(guest.work_mib + 128);
        Ok(Self { memory_mib, guest: guest.clone(), ..Self::default() })
    }

    /// A guest as small as it may be: for tests of what surrounds it.
    pub fn small() -> Self {
        let guest = GuestOptions { work_mib: 32, ..GuestOptions::default() };
        Self { memory_mib: 128, guest, ..Self::default() }
    }

    /// A guest of `memory_mib` MiB in which no page is zero, all but `work_mib` of it standing still.
    pub fn filled(memory_mib: u32, work_mib: u32, rate_mb: u32) -> Self {
        let guest =
            GuestOptions { work_mib, rate_mb, mix: (0, 60, 30), fill: true, ..GuestOptions::default() };
        Self { memory_mib, guest, ..Self::default() }
    }
}

/// One QEMU. It is killed when this is dropped.
pub struct Qemu {
    process: Process,
    qmp: Qmp,
    qmp_path: PathBuf,
    guest: Guest,
}

impl Qemu {
    /// Starts a machine that boots the guest. It runs; [`Guest::wait_ready`] waits for it.
    ///
    /// # Errors
    /// When something is missing (says what to run) or QEMU does not start (with its message).
    pub fn source(scratch: &Scratch, name: &str, options: &QemuOptions) -> Result<Self> {
        Self::start(scratch, name, options, &[])
    }

    /// Starts a machine that waits, stopped, for a migration: `-S -incoming defer`.
    ///
    /// # Errors
    /// Those of [`Qemu::source`].
    pub fn destination(scratch: &Scratch, name: &str, options: &QemuOptions) -> Result<Self> {
        Self::start(scratch, name, options, &["-S", "-incoming", "defer"])
    }

    fn start(scratch: &Scratch, name: &str, options: &QemuOptions, role: &[&str]) -> Result<Self> {
        let file = |suffix: &str| scratch.file(&format!("{name}.{suffix}"));
        // Two QMP sockets, as one serves one connection: `qmp` is for who drives the migration, `own` is ours.
        let (qmp_path, own_path, serial_path) = (file("qmp"), file("own"), file("serial"));
        let (kernel, initrd) = (artefact::kernel()?, artefact::initrd()?);
        let mut arguments: Vec<String> = [
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            // q35 boots fastest of those that migrate; string moves by the byte are what emulation does worst.
            "-machine",
            "q35,hpet=off,smbus=off,sata=off,usb=off,graphics=off",
            "-cpu",
            "max,erms=off,fsrm=off",
            "-accel",
            "tcg,thread=multi",
            "-smp",
            "1",
            "-display",
            "none",
            "-serial",
            "chardev:serial",
        ]
        .map(String::from)
        .to_vec();
        let socket = |path: &Path| format!("unix:{},server=on,wait=off", path.display());
        arguments.extend([
            "-m".into(),
            options.memory_mib.to_string(),
            "-kernel".into(),
            kernel.display().to_string(),
            "-initrd".into(),
            initrd.display().to_string(),
            "-append".into(),
            options.guest.command_line(),
            "-chardev".into(),
            format!("socket,id=serial,path={},server=on,wait=off", serial_path.display()),
            "-serial".into(),
            format!("file:{}", file("console").display()),
            "-qmp".into(),
            socket(&qmp_path),
            "-qmp".into(),
            socket(&own_path),
        ]);
        if options.guest.workload.needs_image() {
            // Source and destination share it: nobody writes to it, so that no lock is needed and nothing of it moves.
            let image = artefact::image()?.display().to_string();
            arguments.extend([
                "-drive".into(),
                format!("if=none,id=image,format=raw,readonly=on,file.locking=off,file={image}"),
                "-device".into(),
                "virtio-blk-pci,drive=image".into(),
            ]);
        }
        arguments.extend(role.iter().map(ToString::to_string));
        arguments.extend(options.extra.iter().cloned());

        let mut process =
            Process::start_behind(&options.prefix, scratch, name, Path::new(PROGRAM), &arguments)?;
        let connect =
            || -> Result<(Serial, Qmp)> { Ok((Serial::connect(&serial_path)?, Qmp::connect(&own_path)?)) };
        match connect() {
            Ok((serial, qmp)) => Ok(Self { process, qmp, qmp_path, guest: Guest::new(serial) }),
            Err(error) => {
                // That QEMU has ended says more than that its socket is missing.
                process.must_run().with_context(|| format!("{PROGRAM} comes with `make setup`"))?;
                Err(error)
            }
        }
    }

    /// The QMP socket that nobody is connected to: for novactl, or another orchestrator.
    pub fn qmp_path(&self) -> &Path {
        &self.qmp_path
    }

    /// The testbed's own QMP connection.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// The guest.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What the machine is doing: running, paused, inmigrate, postmigrate ...
    ///
    /// # Errors
    /// When QEMU does not answer: it may have ended.
    pub fn state(&mut self) -> Result<qmp::RunState> {
        Ok(self.qmp.execute(qmp::query_status {})?.status)
    }

    /// Whether a guest runs here: QEMU lives and says `running`. A QEMU that has ended runs none.
    pub fn runs_guest(&mut self) -> bool {
        matches!(self.process.exited(), Ok(None)) && matches!(self.state(), Ok(qmp::RunState::running))
    }

    /// Lets the machine run.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn cont(&mut self) -> Result<()> {
        self.qmp.execute(qmp::cont {}).map(drop)
    }

    /// Ends QEMU in order and waits for it.
    ///
    /// # Errors
    /// When it does not end.
    pub fn quit(&mut self) -> Result<()> {
        // It may be gone before its answer is: that it ends is all that counts.
        let asked = self.qmp.execute(qmp::quit {});
        self.process.wait(EXIT_WAIT).map(drop).or_else(|late| asked.map(drop).and(Err(late)))
    }
}
