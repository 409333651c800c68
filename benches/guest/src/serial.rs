//! The serial port: whole lines out, bytes in.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// The first serial port. The kernel's own messages go to the second.
const DEVICE: &str = "/dev/ttyS0";

pub(crate) struct Serial {
    input: File,
    output: Mutex<File>,
}

impl Serial {
    pub(crate) fn open() -> Result<Self> {
        let open = || OpenOptions::new().read(true).write(true).open(DEVICE).context(DEVICE);
        let (input, output) = (open()?, open()?);
        let mut settings = tcgetattr(&output).context("reading the settings of the serial port")?;
        settings.make_raw();
        settings.set_speed(115_200).context("setting the speed of the serial port")?;
        tcsetattr(&output, OptionalActions::Now, &settings).context("setting up the serial port")?;
        Ok(Self { input, output: Mutex::new(output) })
    }

    /// Writes `text` and a newline in one piece: lines of several threads never mix.
    pub(crate) fn line(&self, text: &str) -> Result<()> {
        let line = format!("{text}\n");
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        output.write_all(line.as_bytes()).context("writing to the serial port")
    }

    /// Reads what has come in, at least one byte.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<usize> {
        (&self.input).read(buffer).context("reading from the serial port")
    }
}
