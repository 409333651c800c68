//! The link between the sites, as a scenario says it.

use novacron_lab::{Change, Conditions};
use serde::Deserialize;

/// What a file says of a link.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LinkPart {
    /// Either direction.
    pub(super) both: Change,
    /// Towards the destination, on top of `both`.
    pub(super) forward: Change,
    /// Towards the source, on top of `both`.
    pub(super) back: Change,
}

/// A link between two sites.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// Towards the destination.
    pub forward: Conditions,
    /// Towards the source.
    pub back: Conditions,
}

impl From<&LinkPart> for Link {
    fn from(part: &LinkPart) -> Self {
        let both = Conditions::default().with(&part.both);
        Self { forward: both.with(&part.forward), back: both.with(&part.back) }
    }
}

impl Link {
    /// Round-trip time without load, ms.
    pub fn rtt_ms(&self) -> f64 {
        self.forward.delay_ms + self.back.delay_ms
    }

    /// Rate of the narrower direction, bytes a second; `None`: no limit.
    pub fn rate_bytes_per_s(&self) -> Option<f64> {
        let rates = [self.forward.rate_mbit, self.back.rate_mbit].into_iter().flatten();
        rates.reduce(f64::min).map(|mbit| mbit * 125e3)
    }

    /// "500 Mbit/s, 50 ms RTT, 0.1 % loss", and what is unlike it towards the source.
    pub fn text(&self) -> String {
        let mut words = vec![rate(&self.forward), format!("{} ms RTT", self.rtt_ms())];
        words.extend(mishaps(&self.forward));
        if self.forward.rate_mbit != self.back.rate_mbit {
            words.push(format!("back {}", rate(&self.back)));
        }
        if mishaps(&self.forward) != mishaps(&self.back) {
            let back = mishaps(&self.back);
            words.push(format!("back {}", if back.is_empty() { "without".into() } else { back.join(" ") }));
        }
        words.join(", ")
    }
}

fn rate(of: &Conditions) -> String {
    match of.rate_mbit {
        None => "no rate limit".to_owned(),
        Some(mbit) if mbit >= 1000.0 => format!("{} Gbit/s", mbit / 1000.0),
        Some(mbit) => format!("{mbit} Mbit/s"),
    }
}

fn mishaps(of: &Conditions) -> Vec<String> {
    let mut words = Vec::new();
    let mut add = |value: f64, text: &str| {
        if value > 0.0 {
            words.push(format!("{value} {text}"));
        }
    };
    add(of.jitter_ms, "ms jitter");
    add(of.loss_percent, "% loss");
    add(of.burst.map_or(0.0, |burst| (burst.share() * 1e6).round() / 1e4), "% loss in bursts");
    add(of.reorder_percent, "% reordered");
    add(of.duplicate_percent, "% duplicated");
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_said_in_words() {
        let part: LinkPart = toml::from_str(
            "both = { rate_mbit = 500, delay_ms = 25, loss_percent = 0.1 }\nback = { rate_mbit = 20 }",
        )
        .unwrap();
        let link = Link::from(&part);
        assert_eq!(link.text(), "500 Mbit/s, 50 ms RTT, 0.1 % loss, back 20 Mbit/s");
        assert_eq!((link.rtt_ms(), link.rate_bytes_per_s()), (50.0, Some(2.5e6)));
        assert_eq!(Link::default().text(), "no rate limit, 0 ms RTT");
        assert_eq!(Link::default().rate_bytes_per_s(), None);
    }
}
