//! What of a mode's profile this gateway was told otherwise. What somebody says wins over what is measured.

use clap::ValueEnum;
use novacron_protocol::mode::Mode;

/// A congestion control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Congestion {
    Bbr,
    Cubic,
    System,
}

/// What stands on the command line beside the mode; `None`: whatever the mode sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) streams_min: Option<usize>,
    pub(crate) streams_max: Option<usize>,
    pub(crate) congestion: Option<Congestion>,
}

/// What streams are like before a path has a mode.
pub(crate) const UNDECIDED: Mode = Mode::Internet;

impl Told {
    /// Streams to a peer, least and most.
    pub(crate) fn streams(&self, mode: Mode) -> (usize, usize) {
        let (min, max) = mode.profile().streams.into_inner();
        // Who names one bound alone means the other to fit it.
        let least = self.streams_min.unwrap_or(self.streams_max.map_or(min, |most| most.min(min)));
        (least, self.streams_max.unwrap_or(max.max(least)))
    }

    /// The congestion control of streams; `None`: the system's.
    pub(crate) fn congestion(&self, mode: Mode) -> Option<&'static str> {
        match self.congestion {
            None => mode.profile().congestion.kernel_name(),
            Some(Congestion::Bbr) => Some("bbr"),
            Some(Congestion::Cubic) => Some("cubic"),
            Some(Congestion::System) => None,
        }
    }
}
