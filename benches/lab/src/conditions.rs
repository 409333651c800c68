//! What one direction of a link does to frames.

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::{
    DELAY_MS_MAX, QUEUE_BYTES_MIN, QUEUE_KB_MAX, QUEUE_MS_MIN, RATE_MBIT_MAX, RATE_MBIT_MIN,
};

/// One direction of a link. `Default` passes everything on as it comes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conditions {
    /// Megabits a second of whole Ethernet frames as the device sees them: 14 bytes of header and no checksum, preamble or
    /// gap, so 1514 bytes for an MTU of 1500. `None`: no limit.
    pub rate_mbit: Option<f64>,
    /// One-way delay, behind the queue and the rate.
    pub delay_ms: f64,
    /// The delay wanders between `delay_ms - jitter_ms` and `delay_ms + jitter_ms`. Frames do not overtake by it.
    pub jitter_ms: f64,
    /// Of 100 frames so many are lost, each for itself.
    pub loss_percent: f64,
    /// Losses that come together; frames have to survive both kinds.
    pub burst: Option<Burst>,
    /// Of 100 frames so many are held back for `reorder_ms`, so that those behind overtake them.
    pub reorder_percent: f64,
    /// See `reorder_percent`.
    pub reorder_ms: f64,
    /// Of 100 frames so many arrive twice; the copy takes its share of the rate.
    pub duplicate_percent: f64,
    /// How much may wait for the rate; what comes when it is full is dropped.
    pub queue: Queue,
    /// Nothing passes, and what was under way is lost.
    pub cut: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            rate_mbit: None,
            delay_ms: 0.0,
            jitter_ms: 0.0,
            loss_percent: 0.0,
            burst: None,
            reorder_percent: 0.0,
            reorder_ms: 1.0,
            duplicate_percent: 0.0,
            queue: Queue::Default,
            cut: false,
        }
    }
}

/// Gilbert–Elliott: a direction is good or bad; before each frame it may change from one to the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// Chance, at each frame, that a good direction turns bad.
    #[serde(deserialize_with = "percent")]
    pub enter_percent: f64,
    /// Chance, at each frame, that a bad direction turns good; a bad time lasts 100 / `leave_percent` frames.
    #[serde(deserialize_with = "percent")]
    pub leave_percent: f64,
    /// Frames lost while it is bad.
    #[serde(default = "all", deserialize_with = "percent")]
    pub bad_loss_percent: f64,
    /// Frames lost while it is good.
    #[serde(default, deserialize_with = "percent")]
    pub good_loss_percent: f64,
}

fn all() -> f64 {
    100.0
}

impl Burst {
    /// Loses `loss_percent` of all frames, in runs of `frames` on average.
    pub fn of(loss_percent: f64, frames: f64) -> Self {
        let leave = 1.0 / frames.max(1.0);
        let share = (loss_percent / 100.0).clamp(0.0, 1.0);
        // Of the time, enter / (enter + leave) is bad.
        let enter = if share < 1.0 { (leave * share / (1.0 - share)).min(1.0) } else { 1.0 };
        Self {
            enter_percent: enter * 100.0,
            leave_percent: if share < 1.0 { leave * 100.0 } else { 0.0 },
            bad_loss_percent: 100.0,
            good_loss_percent: 0.0,
        }
    }

    /// The share of frames, 0 to 1, that is lost in the long run.
    pub fn share(&self) -> f64 {
        let bad = self.bad_share();
        (bad * self.bad_loss_percent + (1.0 - bad) * self.good_loss_percent) / 100.0
    }

    /// How much wider the mean of a run of frames scatters than if each were lost for itself, as a factor on the
    /// variance.
    pub fn variance_factor(&self) -> f64 {
        let share = self.share();
        let remembered = 1.0 - (self.enter_percent + self.leave_percent) / 100.0;
        let apart = (self.bad_loss_percent - self.good_loss_percent) / 100.0;
        let bad = self.bad_share();
        if share <= 0.0 || share >= 1.0 || remembered >= 1.0 {
            return 1.0;
        }
        1.0 + 2.0 * apart * apart * bad * (1.0 - bad) * remembered
            / (1.0 - remembered)
            / (share * (1.0 - share))
    }

    fn bad_share(&self) -> f64 {
        let both = self.enter_percent + self.leave_percent;
        if both > 0.0 { self.enter_percent / both } else { 0.0 }
    }
}

/// How much may wait for the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// The largest of 64 kB, 10 ms of the rate, and the rate times twice the one-way delay.
    #[default]
    Default,
    /// So many milliseconds of the rate.
    Ms(f64),
    /// So many thousand bytes.
    Kb(f64),
}

impl Conditions {
    /// Bytes that may wait for the rate; `None` where there is no rate and so nothing waits.
    pub fn queue_bytes(&self) -> Option<u64> {
        let bytes_per_ms = self.rate_mbit? * 125.0;
        Some(match self.queue {
            Queue::Default => {
                let ms = QUEUE_MS_MIN.max(2.0 * self.delay_ms);
                ((bytes_per_ms * ms) as u64).max(QUEUE_BYTES_MIN)
            }
            Queue::Ms(ms) => (bytes_per_ms * ms) as u64,
            Queue::Kb(kb) => (kb * 1000.0) as u64,
        })
    }

    /// The share of frames, 0 to 1, that is lost in the long run, by chance alone.
    pub fn loss_share(&self) -> f64 {
        let burst = self.burst.map_or(0.0, |burst| burst.share());
        1.0 - (1.0 - self.loss_percent / 100.0) * (1.0 - burst)
    }

    /// Says what is out of range.
    ///
    /// # Errors
    /// The field, what it is and what was expected.
    pub fn check(&self) -> Result<(), String> {
        if let Some(rate) = self.rate_mbit {
            within("rate_mbit", rate, RATE_MBIT_MIN, RATE_MBIT_MAX)?;
        }
        within("delay_ms", self.delay_ms, 0.0, DELAY_MS_MAX)?;
        within("jitter_ms", self.jitter_ms, 0.0, DELAY_MS_MAX)?;
        within("reorder_ms", self.reorder_ms, 0.0, DELAY_MS_MAX)?;
        within("loss_percent", self.loss_percent, 0.0, 100.0)?;
        within("reorder_percent", self.reorder_percent, 0.0, 100.0)?;
        within("duplicate_percent", self.duplicate_percent, 0.0, 100.0)?;
        if let Some(burst) = self.burst {
            within("burst.enter_percent", burst.enter_percent, 0.0, 100.0)?;
            within("burst.leave_percent", burst.leave_percent, 0.0, 100.0)?;
            within("burst.bad_loss_percent", burst.bad_loss_percent, 0.0, 100.0)?;
            within("burst.good_loss_percent", burst.good_loss_percent, 0.0, 100.0)?;
        }
        match self.queue {
            Queue::Default => Ok(()),
            Queue::Ms(ms) => within("queue_ms", ms, 0.0, DELAY_MS_MAX),
            Queue::Kb(kb) => within("queue_kb", kb, 0.0, QUEUE_KB_MAX),
        }
    }

    /// These conditions with what `change` names.
    #[must_use]
    pub fn with(&self, change: &Change) -> Self {
        let mut new = self.clone();
        if let Some(rate) = change.rate_mbit {
            // Zero in a file or on the command line takes the limit away.
            new.rate_mbit = (rate > 0.0).then_some(rate);
        }
        let take = |to: &mut f64, from: Option<f64>| *to = from.unwrap_or(*to);
        take(&mut new.delay_ms, change.delay_ms);
        take(&mut new.jitter_ms, change.jitter_ms);
        take(&mut new.loss_percent, change.loss_percent);
        take(&mut new.reorder_percent, change.reorder_percent);
        take(&mut new.reorder_ms, change.reorder_ms);
        take(&mut new.duplicate_percent, change.duplicate_percent);
        new.burst = change.burst.or(new.burst);
        new.queue = change.queue_ms.map(Queue::Ms).or(change.queue_kb.map(Queue::Kb)).unwrap_or(new.queue);
        new.cut = change.cut.unwrap_or(new.cut);
        new
    }
}

/// Some of [`Conditions`]: what a topology says of a link, or a command changes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    /// [`Conditions::rate_mbit`]; 0: no limit.
    #[serde(deserialize_with = "rate")]
    pub rate_mbit: Option<f64>,
    /// [`Conditions::delay_ms`].
    #[serde(deserialize_with = "some_ms")]
    pub delay_ms: Option<f64>,
    /// [`Conditions::jitter_ms`].
    #[serde(deserialize_with = "some_ms")]
    pub jitter_ms: Option<f64>,
    /// [`Conditions::loss_percent`].
    #[serde(deserialize_with = "some_percent")]
    pub loss_percent: Option<f64>,
    /// [`Conditions::burst`].
    pub burst: Option<Burst>,
    /// [`Conditions::reorder_percent`].
    #[serde(deserialize_with = "some_percent")]
    pub reorder_percent: Option<f64>,
    /// [`Conditions::reorder_ms`].
    #[serde(deserialize_with = "some_ms")]
    pub reorder_ms: Option<f64>,
    /// [`Conditions::duplicate_percent`].
    #[serde(deserialize_with = "some_percent")]
    pub duplicate_percent: Option<f64>,
    /// [`Queue::Ms`].
    #[serde(deserialize_with = "some_ms")]
    pub queue_ms: Option<f64>,
    /// [`Queue::Kb`].
    #[serde(deserialize_with = "kb")]
    pub queue_kb: Option<f64>,
    /// [`Conditions::cut`].
    pub cut: Option<bool>,
}

fn within(name: &str, value: f64, min: f64, max: f64) -> Result<(), String> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(format!("{name} is {value}, expected a number from {min} to {max}"))
}

// With these, a number out of range in a file is refused where it stands.

fn number<'de, D: Deserializer<'de>>(from: D, what: &str, min: f64, max: f64) -> Result<f64, D::Error> {
    let value = f64::deserialize(from)?;
    within(what, value, min, max).map_err(serde::de::Error::custom)?;
    Ok(value)
}

fn percent<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    number(from, "a percentage", 0.0, 100.0)
}

fn some_percent<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    percent(from).map(Some)
}

fn some_ms<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    number(from, "a time in ms", 0.0, DELAY_MS_MAX).map(Some)
}

fn kb<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    number(from, "a queue in kB", 0.0, QUEUE_KB_MAX).map(Some)
}

fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let rate = f64::deserialize(from)?;
    if rate != 0.0 {
        within("a rate in Mbit/s", rate, RATE_MBIT_MIN, RATE_MBIT_MAX).map_err(serde::de::Error::custom)?;
    }
    Ok(Some(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_lose_what_was_asked() {
        for (loss, frames) in [(1.0, 10.0), (0.1, 3.0), (30.0, 50.0), (0.0, 5.0), (100.0, 5.0)] {
            let burst = Burst::of(loss, frames);
            assert!((burst.share() * 100.0 - loss).abs() < 1e-9, "{loss} {frames}: {burst:?}");
        }
    }

    #[test]
    fn the_queue_nobody_sized_holds_a_round_trip() {
        let mut link = Conditions { rate_mbit: Some(500.0), delay_ms: 25.0, ..Conditions::default() };
        assert_eq!(link.queue_bytes(), Some(3_125_000));
        link.delay_ms = 0.0;
        assert_eq!(link.queue_bytes(), Some(625_000), "10 ms");
        link.rate_mbit = Some(1.0);
        assert_eq!(link.queue_bytes(), Some(QUEUE_BYTES_MIN));
        link.queue = Queue::Ms(4.0);
        assert_eq!(link.queue_bytes(), Some(500));
        link.rate_mbit = None;
        assert_eq!(link.queue_bytes(), None);
    }

    #[test]
    fn a_change_leaves_the_rest_as_it_was() {
        let old =
            Conditions { delay_ms: 5.0, loss_percent: 1.0, rate_mbit: Some(10.0), ..Default::default() };
        let change = Change { delay_ms: Some(7.0), rate_mbit: Some(0.0), ..Change::default() };
        let new = old.with(&change);
        assert_eq!((new.delay_ms, new.loss_percent, new.rate_mbit), (7.0, 1.0, None));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let bad = Conditions { loss_percent: 101.0, ..Conditions::default() };
        let said = bad.check().unwrap_err();
        assert!(said.contains("loss_percent") && said.contains("101") && said.contains("100"), "{said}");
        assert!(Conditions { delay_ms: f64::NAN, ..Default::default() }.check().is_err());
        assert!(Conditions { rate_mbit: Some(0.0), ..Default::default() }.check().is_err());
        assert_eq!(Conditions::default().check(), Ok(()));
    }
}
