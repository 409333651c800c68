//! QEMU's own ways over the same link, with the same guest.

use std::time::Duration;

use anyhow::{Context, Result};
use novacron_testbed::{Migration, Qemu, QemuOptions, Scratch, TimedOut, port};

use super::report::{Contender, rounded};
use super::sites::Sites;
use crate::contender::{self, Entry};
use crate::run::as_contender;

/// A contender that takes longer is given up: the demonstration is to end.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(45);

/// What the gateways are set beside, as the benchmarks know them: QEMU's best on such a link, and its plainest.
pub(super) const RIVALS: [&str; 2] = ["multifd-4-zstd", "tcp"];

/// A guest, where it runs, and where it can go.
pub(super) struct Traveller<'a> {
    pub(super) scratch: &'a Scratch,
    pub(super) options: &'a QemuOptions,
    pub(super) sites: &'a Sites,
    /// The hypervisor in which it runs.
    pub(super) here: Qemu,
    /// Whether that stands at the source's site.
    pub(super) at_source: bool,
}

impl Traveller<'_> {
    /// Moves the guest to the other site and lets it verify itself there. What goes wrong is a row too.
    pub(super) fn go(&mut self, rival: &str) -> Contender {
        if !self.here.runs_guest() {
            let why = "not tried: the contender before has left no running guest";
            return Contender::without(rival, why.to_owned());
        }
        match self.moved(rival) {
            Ok(row) => row,
            Err(error) => Contender::without(
                rival,
                match error.downcast_ref::<TimedOut>() {
                    Some(_) => format!("not done within {} s, given up", TIME_LIMIT.as_secs()),
                    None => format!("failed: {error:#}"),
                },
            ),
        }
    }

    fn moved(&mut self, rival: &str) -> Result<Contender> {
        let tuning = contender::Contender::of(&Entry::named(rival)).map_err(anyhow::Error::msg)?.tuning;
        let place = self.sites.across(self.at_source);
        let options = QemuOptions { prefix: place.prefix.clone(), ..self.options.clone() };
        let uri = format!("tcp:{}:{}", place.address, port::free()?);
        let mut destination = Qemu::destination(self.scratch, &format!("after-{rival}"), &options)?;
        let migration = Migration {
            incoming: uri.clone(),
            outgoing: uri,
            time_limit: TIME_LIMIT,
            ..Migration::direct_unix(self.scratch)
        };
        let migration = as_contender(migration, &tuning);
        let interval = migration.prepare(&mut self.here, &mut destination)?;
        migration.listen(&mut destination)?;
        self.sites.count_anew()?;
        let began = migration.dial(&mut self.here)?;
        let report = migration.finish(&mut self.here, &mut destination, interval, began)?;
        let wire_bytes = self.sites.wire_bytes()?;
        // From here on the guest is there, whatever else is found.
        let mut left = std::mem::replace(&mut self.here, destination);
        self.at_source = !self.at_source;
        left.quit().context("ending the hypervisor that the guest has left")?;
        let verified = self.here.guest().verify().context("letting the guest verify itself")?;
        Ok(Contender {
            name: rival.to_owned(),
            result: "completed".to_owned(),
            total_ms: Some(rounded(report.elapsed)),
            guest_pause_ms: Some(rounded(report.pause.pause)),
            wire_bytes,
            guest_verified: Some(verified.pages > 0 && verified.bad == 0),
        })
    }
}
