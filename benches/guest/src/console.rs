//! Commands from the serial port, one a line.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::dirty::{Shared, report};
use crate::limits::{COMMAND_BYTES_MAX, PAGE_BYTES};
use crate::serial::Serial;

/// Serves commands until the serial port fails.
pub(crate) fn serve(serial: &Serial, shared: &Shared) -> Result<()> {
    let mut lines = Lines::default();
    let mut since = (Instant::now(), 0);
    let mut buffer = [0; COMMAND_BYTES_MAX];
    loop {
        let count = serial.read(&mut buffer)?;
        ensure!(count > 0, "the serial port has closed");
        for &byte in &buffer[..count] {
            match lines.push(byte) {
                Some(Ok(line)) => serial.line(&answer(&line, serial, shared, &mut since))?,
                Some(Err(TooLong)) => serial.line("ERROR the command is too long")?,
                None => {}
            }
        }
    }
}

fn answer(line: &str, serial: &Serial, shared: &Shared, since: &mut (Instant, u64)) -> String {
    let mut words = line.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("verify"), None, None) => shared.with_workset(|workset| {
            let mut bad_before = workset.bad();
            workset.sweep(|bad| {
                report(serial, bad_before, bad);
                bad_before += 1;
            });
            format!("VERIFIED pages={} bad={} dirtied={}", workset.pages(), workset.bad(), workset.dirtied())
        }),
        (Some("corrupt"), None, None) => {
            format!("CORRUPTED page={}", shared.with_workset(|workset| workset.corrupt_one()))
        }
        (Some("rate"), Some(rate), None) => match rate.parse() {
            Ok(rate_mb) => {
                shared.set_rate_mb(rate_mb);
                *since = (Instant::now(), shared.with_workset(|workset| workset.dirtied()));
                format!("RATE mb={rate_mb}")
            }
            Err(_) => format!("ERROR rate {rate} is not a number of MB/s"),
        },
        // The rate reached since the last `stat` or `rate`.
        (Some("stat"), None, None) => {
            let (dirtied, bad) = shared.with_workset(|workset| (workset.dirtied(), workset.bad()));
            let us = since.0.elapsed().as_micros().max(1);
            let kb_per_s = u128::from(dirtied - since.1) * PAGE_BYTES as u128 * 1000 / us;
            *since = (Instant::now(), dirtied);
            format!("STAT rate_mb={} achieved_kb={kb_per_s} dirtied={dirtied} bad={bad}", shared.rate_mb())
        }
        _ => format!("ERROR unknown command {line:?}: verify, corrupt, rate MB, stat"),
    }
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
        assert_eq!(lines(b"verify\nstat\nra"), [Ok("verify".into()), Ok("stat".into())]);
        let mut input = vec![b'x'; 3 * COMMAND_BYTES_MAX];
        input.extend(b"\nstat\n");
        assert_eq!(lines(&input), [Err(()), Ok("stat".into())]);
    }
}
