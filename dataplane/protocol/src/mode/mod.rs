//! What kind of path lies between two gateways, and what follows from it.
//!
//! ```text
//!  Recent ──> Detector ── Change ──> whoever applies the Profile
//!                ^ override: always wins
//! ```

mod detector;
mod profile;

pub use detector::{Change, Detector, Thresholds, Why};
pub use profile::{CodecBounds, Congestion, Consensus, Profile, TransportKind};

/// The kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Near and fast.
    Datacenter,
    /// Far or slow.
    Internet,
    /// Between, or not known.
    Hybrid,
}

impl Mode {
    /// Each.
    pub const ALL: [Mode; 3] = [Mode::Datacenter, Mode::Internet, Mode::Hybrid];

    /// Its name in settings and results.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Datacenter => "datacenter",
            Mode::Internet => "internet",
            Mode::Hybrid => "hybrid",
        }
    }

    /// The mode of a name.
    pub fn named(name: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
