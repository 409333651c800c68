//! QEMU to QEMU, alone or with a socat at each site between.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use novacron_testbed::{Compression, Migration, Postcopy, Qemu, port};

use super::Stage;
use super::migration::{Moved, Mover};
use super::socat::Relays;
use crate::contender::{Contender, Kind, PageCompression, Tuning};
use crate::meter::Watched;
use crate::scenario::Scenario;

/// QEMU's own migration.
pub(super) struct Direct {
    migration: Migration,
    relays: Option<Relays>,
}

impl Direct {
    pub(super) fn start(stage: &Stage<'_>, contender: &Contender) -> Result<Self> {
        let destination = SocketAddr::new(stage.network.destination.address, port::free()?);
        let uri = format!("tcp:{destination}");
        let direct =
            Migration { incoming: uri.clone(), outgoing: uri, ..Migration::direct_unix(stage.scratch) };
        let direct = tuned(direct, &contender.tuning, stage.scenario);
        if contender.kind != Kind::Socat {
            return Ok(Self { migration: direct, relays: None });
        }
        let relays = Relays::start(stage, destination)?;
        let unix = |path: &std::path::Path| format!("unix:{}", path.display());
        let (incoming, outgoing) = (unix(relays.exit()), unix(relays.entry()));
        Ok(Self { migration: Migration { incoming, outgoing, ..direct }, relays: Some(relays) })
    }
}

/// A contender's settings and those of the scenario.
fn tuned(over: Migration, tuning: &Tuning, scenario: &Scenario) -> Migration {
    let over = as_contender(over, tuning);
    Migration {
        max_bandwidth: scenario.max_bandwidth.unwrap_or(over.max_bandwidth),
        downtime_limit: scenario.downtime_limit,
        time_limit: scenario.time_limit,
        ..over
    }
}

/// A contender's settings alone.
pub(crate) fn as_contender(over: Migration, tuning: &Tuning) -> Migration {
    let level = tuning.compression_level.unwrap_or(1);
    Migration {
        multifd_channels: tuning.channels,
        multifd_compression: tuning.compression.map(|compression| match compression {
            PageCompression::Zlib => Compression::Zlib(level),
            PageCompression::Zstd => Compression::Zstd(level),
        }),
        xbzrle_cache_bytes: tuning.cache_mib.map(|mib| mib << 20),
        postcopy: (tuning.postcopy == Some(true))
            .then_some(Postcopy { preempt: tuning.preempt == Some(true) }),
        switchover_ack: tuning.switchover_ack == Some(true),
        ..over
    }
}

impl Mover for Direct {
    fn processes(&mut self) -> Vec<Watched> {
        self.relays.as_ref().map(Relays::processes).unwrap_or_default()
    }

    fn go(&mut self, source: &mut Qemu, destination: &mut Qemu, interval: Duration) -> Result<Moved> {
        self.migration.prepare(source, destination)?;
        self.migration.listen(destination)?;
        let began = self.migration.dial(source)?;
        let report = self.migration.finish(source, destination, interval, began)?;
        Ok(Moved {
            total: report.elapsed,
            downtime: Some(report.downtime),
            pause: report.pause,
            guest_bytes: Some(report.sent_bytes),
            iterations: Some(report.iterations),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn settings_reach_qemu() {
        let text = "why = \"x\"\nrepetitions = 1\ntime_limit_s = 7\ndowntime_limit_ms = 50\nmax_bandwidth_mb = 3\n\
                    contenders = [\"multifd-4-zstd\", \"xbzrle\", \"postcopy-preempt\", \"tcp\"]\n\
                    [guest]\nworkload = \"dirty\"\nmemory_mib = 256\n";
        let scenario = Scenario::parse(text, Path::new("x.toml")).unwrap();
        let of = |index: usize| {
            let over = Migration::direct_tcp().unwrap();
            tuned(over, &scenario.contenders[index].tuning, &scenario)
        };
        let zstd = of(0);
        assert_eq!((zstd.multifd_channels, zstd.multifd_compression), (Some(4), Some(Compression::Zstd(1))));
        assert_eq!((zstd.max_bandwidth, zstd.downtime_limit), (3_000_000, Duration::from_millis(50)));
        assert_eq!(zstd.time_limit, Duration::from_secs(7));
        assert_eq!(of(1).xbzrle_cache_bytes, Some(64 << 20));
        assert_eq!(of(2).postcopy, Some(Postcopy { preempt: true }));
        let tcp = of(3);
        assert_eq!((tcp.multifd_channels, tcp.xbzrle_cache_bytes, tcp.postcopy), (None, None, None));
    }
}
