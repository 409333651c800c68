//! A lab's control socket: one JSON object a line each way.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::addresses::End;
use crate::conditions::Conditions;
use crate::limits::{ANSWER_WAIT, LINE_BYTES_MAX};
use crate::report::LabReport;

/// Directions of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Both.
    #[default]
    Both,
    /// From its `from` to its `to`.
    Forward,
    /// From its `to` to its `from`.
    Back,
}

/// What a lab can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Changes a link.
    Set { link: String, way: Way, conditions: Box<Conditions> },
    /// Says what became of frames.
    Report {},
    /// Starts counters and lateness again.
    Reset {},
    /// Says which sites there are.
    Sites {},
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Done,
    Report(LabReport),
    Sites(Vec<SiteReport>),
    Error(String),
}

/// A site as the lab made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SiteReport {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) ends: Vec<End>,
}

/// What a lab prints, in one line, when it is up; or why it is not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Greeting {
    Up { id: String, pid: u32, sites: Vec<SiteReport> },
    Error(String),
}

/// A connection to a lab.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("connecting to the lab at {}", socket.display()))?;
        limit(&stream, ANSWER_WAIT)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// When the lab refuses, or is gone.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Answer> {
        write_line(self.stream.get_mut(), request).context("asking the lab")?;
        let line = read_line(&mut self.stream).context("waiting for the lab")?;
        let line = line.context("the lab has closed the connection")?;
        match serde_json::from_str(&line).context("the lab's answer is none")? {
            Answer::Error(error) => bail!("the lab refused: {error}"),
            answer => Ok(answer),
        }
    }

    pub(crate) fn report(&mut self) -> Result<LabReport> {
        match self.ask(&Request::Report {})? {
            Answer::Report(report) => Ok(report),
            other => bail!("the lab answered something else: {other:?}"),
        }
    }

    pub(crate) fn sites(&mut self) -> Result<Vec<SiteReport>> {
        match self.ask(&Request::Sites {})? {
            Answer::Sites(sites) => Ok(sites),
            other => bail!("the lab answered something else: {other:?}"),
        }
    }
}

pub(crate) fn limit(stream: &UnixStream, wait: Duration) -> Result<()> {
    stream
        .set_read_timeout(Some(wait))
        .and_then(|()| stream.set_write_timeout(Some(wait)))
        .context("limiting a wait")
}

pub(crate) fn write_line(to: &mut impl Write, value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(value).context("writing JSON")?;
    line.push(b'\n');
    to.write_all(&line).and_then(|()| to.flush()).context("sending a line")
}

/// One line; `None` at the end.
pub(crate) fn read_line(from: &mut impl BufRead) -> Result<Option<String>> {
    let mut line = String::new();
    let read = from.by_ref().take(LINE_BYTES_MAX).read_line(&mut line).context("reading a line")?;
    ensure!(
        line.ends_with('\n') || (read as u64) < LINE_BYTES_MAX,
        "a line is longer than {LINE_BYTES_MAX} bytes"
    );
    Ok((read > 0).then_some(line))
}
