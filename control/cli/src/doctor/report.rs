//! What `doctor` found: one line a check, each with what to do.

use serde::Serialize;

use crate::report::{EXIT_DONE, EXIT_FAILED};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Standing {
    /// As it should be.
    Ok,
    /// It works, and somebody should look.
    Warn,
    /// The sites cannot talk because of this.
    Fail,
    /// Not looked at, and why.
    Skip,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Line {
    check: &'static str,
    standing: Standing,
    found: String,
    next: Option<String>,
}

/// All of them.
#[derive(Debug, Serialize)]
pub(super) struct Diagnosis {
    peer: String,
    identity: Option<String>,
    /// Whether nothing stands in the way.
    pub(super) can_talk: bool,
    checks: Vec<Line>,
}

impl Diagnosis {
    pub(super) fn of(peer: String) -> Self {
        Self { peer, identity: None, can_talk: true, checks: Vec::new() }
    }

    pub(super) fn identity(&mut self, identity: String) {
        self.identity = Some(identity);
    }

    fn add(&mut self, check: &'static str, standing: Standing, found: String, next: Option<String>) {
        self.can_talk &= standing != Standing::Fail;
        let clean = |text: String| text.chars().filter(|letter| !letter.is_control()).collect();
        self.checks.push(Line { check, standing, found: clean(found), next: next.map(clean) });
    }

    pub(super) fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Standing::Ok, found.into(), None);
    }

    pub(super) fn warn(&mut self, check: &'static str, found: impl Into<String>, next: impl Into<String>) {
        self.add(check, Standing::Warn, found.into(), Some(next.into()));
    }

    pub(super) fn fail(&mut self, check: &'static str, found: impl Into<String>, next: impl Into<String>) {
        self.add(check, Standing::Fail, found.into(), Some(next.into()));
    }

    pub(super) fn skip(&mut self, check: &'static str, why: impl Into<String>) {
        self.add(check, Standing::Skip, why.into(), None);
    }

    /// One screen.
    pub(super) fn screen(&self) -> String {
        let who = self.identity.as_deref().unwrap_or("nobody");
        let mut text = format!("{} seen from here, as {who}\n", self.peer);
        for line in &self.checks {
            let standing = match line.standing {
                Standing::Ok => "ok",
                Standing::Warn => "warn",
                Standing::Fail => "FAIL",
                Standing::Skip => "-",
            };
            text += &format!("  {standing:<4}  {:<17}  {}\n", line.check, line.found);
            if let Some(next) = &line.next {
                text += &format!("{:27}next: {next}\n", "");
            }
        }
        text + if self.can_talk {
            "the two can talk, as far as it was looked at\n"
        } else {
            "the two cannot talk: see FAIL above; nothing was changed\n"
        }
    }

    pub(super) fn exit(&self) -> u8 {
        if self.can_talk { EXIT_DONE } else { EXIT_FAILED }
    }
}
