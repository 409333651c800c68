//! Commands from the serial port, one a line.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::drive::{Done, Drive, Verified};
use crate::limits::COMMAND_BYTES_MAX;
use crate::pace::MILLIONTHS;
use crate::params::millionths;
use crate::serial::Serial;

/// Serves commands until the serial port fails.
pub(crate) fn serve(serial: &Serial, drive: &Drive) -> Result<()> {
    let mut lines = Lines::default();
    let mut since = Since::now(drive);
    let mut buffer = [0; COMMAND_BYTES_MAX];
    loop {
        let count = serial.read(&mut buffer)?;
        ensure!(count > 0, "the serial port has closed");
        for &byte in &buffer[..count] {
            match lines.push(byte) {
                Some(Ok(line)) => {
                    let answer = answer(&line, drive, &mut since);
                    serial.line(&answer.unwrap_or_else(|error| format!("ERROR {error:#}")))?;
                }
                Some(Err(TooLong)) => serial.line("ERROR the command is too long")?,
                None => {}
            }
        }
    }
}

/// When the work done was last asked for, by the guest's clock, and how much there was.
struct Since {
    at: Instant,
    done: Done,
}

impl Since {
    fn now(drive: &Drive) -> Self {
        Self { at: Instant::now(), done: drive.done() }
    }
}

fn answer(line: &str, drive: &Drive, since: &mut Since) -> Result<String> {
    let mut words = line.split_whitespace();
    Ok(match (words.next(), words.next(), words.next()) {
        (Some("verify"), None, None) => {
            let Verified { checked, bad, steps } = drive.verify()?;
            format!("VERIFIED checked={checked} bad={bad} done={steps}")
        }
        (Some("corrupt"), None, None) => format!("CORRUPTED page={}", drive.corrupt()?),
        (Some("rate"), Some(rate), None) => {
            drive.set_rate(millionths(rate).with_context(|| format!("rate {rate} is not a number"))?);
            *since = Since::now(drive);
            format!("RATE set={rate}")
        }
        // The rate reached since the last `work` or `rate`.
        (Some("work"), None, None) => {
            let before = std::mem::replace(since, Since::now(drive));
            let us = since.at.saturating_duration_since(before.at).as_micros().max(1);
            let amount = u128::from(since.done.amount - before.done.amount);
            let achieved = u64::try_from(amount * 1_000_000 / us).unwrap_or(u64::MAX);
            let Done { unit, .. } = since.done;
            format!("WORK set={} achieved={} unit={unit} us={us}", decimal(drive.rate()), decimal(achieved))
        }
        _ => bail!("unknown command {line:?}: verify, corrupt, rate UNITS, work"),
    })
}

/// "2.5" for 2,500,000 millionths, and back.
fn decimal(millionths: u64) -> String {
    let text = format!("{}.{:06}", millionths / MILLIONTHS, millionths % MILLIONTHS);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

struct TooLong;

/// Puts lines together, none longer than [`COMMAND_BYTES_MAX`].
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    too_long: bool,
}

impl Lines {
    fn push(&mut self, byte: u8) -> Option<Result<String, TooLong>> {
        if byte != b'\n' {
            if self.line.len() < COMMAND_BYTES_MAX {
                self.line.push(byte);
            } else {
                self.too_long = true;
            }
            return None;
        }
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        Some(if std::mem::take(&mut self.too_long) { Err(TooLong) } else { Ok(line) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<Result<String, ()>> {
        let mut lines = Lines::default();
        input.iter().filter_map(|&byte| lines.push(byte)).map(|line| line.map_err(|TooLong| ())).collect()
    }

    #[test]
    fn lines_are_cut_and_bounded() {
        assert_eq!(lines(b"verify\nwork\nra"), [Ok("verify".into()), Ok("work".into())]);
        let mut input = vec![b'x'; 3 * COMMAND_BYTES_MAX];
        input.extend(b"\nwork\n");
        assert_eq!(lines(&input), [Err(()), Ok("work".into())]);
    }

    #[test]
    fn decimals_come_back() {
        for text in ["0", "1", "20", "0.5", "12.345678", "400.25"] {
            assert_eq!(decimal(millionths(text).unwrap()), text);
        }
    }
}
