//! From costs to a choice: what a byte on the wire is worth.
//!
//! Each batch takes the effort for which `cost + price x encoded bytes` is least. The price is what makes the whole session
//! fastest: of all mixes of efforts, the one that needs least of `max(processor, link)` a guest byte lies on the lower hull
//! of (cost, ratio), which is what a price walks along (Shoham and Gersho, "Efficient bit allocation for an arbitrary set of
//! quantizers", IEEE Trans. ASSP 36-9: the same for bits and distortion). A higher price never costs less time nor more
//! bytes, so the best one is where link and processor meet; between two prices batches alternate.

use super::super::sample::Kind;
use super::costs::Costs;

/// Prices in nanoseconds a byte: nothing, then from the least to the most by this factor.
const PRICES: usize = 56;
const PRICE_MIN: f64 = 0.05;
const PRICE_FACTOR: f64 = 1.25;
/// What nobody waits for is done only while a byte less on the wire costs at most so many nanoseconds.
const FREE_PRICE_MAX: f64 = 50.0;

/// What is free is not worth looking at batches for while it is less than this share of handling them.
const FREE_SHARE_MIN: f64 = 0.05;

/// What holds a guest byte up besides being encoded, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// What the link takes for an encoded byte; 0: it is not known to hold anything up.
    pub link_ns: f64,
    /// What reading, digesting and sending a guest byte takes the session's thread.
    pub handling_ns: f64,
    /// What encoding may take of a guest byte's time because nobody waits for it.
    pub free_ns: f64,
    /// Threads that encode.
    pub workers: u16,
    /// How many times its processor time encoding takes by the clock, because others have the processors too; 1 where nobody has.
    pub crowding: f64,
}

impl Default for Terms {
    fn default() -> Self {
        Terms { link_ns: 0.0, handling_ns: 0.0, free_ns: 0.0, workers: 0, crowding: 1.0 }
    }
}

impl Terms {
    /// Time for a guest byte whose encoding takes `encoding_ns` of a processor.
    fn processor_ns(&self, encoding_ns: f64) -> f64 {
        let encoding_ns = encoding_ns * self.crowding;
        let all = self.handling_ns + encoding_ns;
        if self.workers > 1 { self.handling_ns.max(all / f64::from(self.workers)) } else { all }
    }
}

/// What batches are like: guest bytes by kind, old ones forgotten.
#[derive(Clone, Debug, Default)]
pub(super) struct Mix {
    bytes: [f64; Kind::COUNT],
}

impl Mix {
    /// Guest bytes after which half of what was is forgotten.
    const MEMORY_BYTES: f64 = 8e6;

    pub(super) fn add(&mut self, kind: Kind, bytes: usize) {
        let keep = 0.5f64.powf(bytes as f64 / Self::MEMORY_BYTES);
        for known in &mut self.bytes {
            *known *= keep;
        }
        self.bytes[kind.index()] += bytes as f64;
    }

    fn shares(&self) -> impl Iterator<Item = (Kind, f64)> + '_ {
        let sum = self.bytes.iter().sum::<f64>().max(1.0);
        Kind::ALL.into_iter().zip(&self.bytes).map(move |(kind, bytes)| (kind, bytes / sum))
    }
}

/// A price: a place on the ladder of them, between two where batches alternate.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub(super) struct Price(pub(super) f64);

impl Price {
    /// Until anything is known of the link. What is sent by then is little; a fast link loses a millisecond or two by it, a slow
    /// one would lose a second without.
    pub(super) const AT_FIRST: Price = Price(22.0);

    /// The two places around it, and the share of batches that take the upper.
    pub(super) fn places(self) -> (usize, usize, f64) {
        let below = self.0.floor();
        let low = (below as usize).min(PRICES);
        (low, (low + 1).min(PRICES), self.0 - below)
    }

    pub(super) fn is_zero(self) -> bool {
        self.0 <= 0.0
    }
}

/// Nanoseconds a byte at a place.
fn price(place: usize) -> f64 {
    if place == 0 { 0.0 } else { PRICE_MIN * PRICE_FACTOR.powi(place as i32 - 1) }
}

/// The effort that a kind of batch takes at a place.
pub(super) fn pick(costs: &Costs, kind: Kind, place: usize, at_best: bool) -> usize {
    let of = |at| (costs.cost(at, kind, at_best), costs.ratio(at, kind));
    cheapest(kind, place, costs.efforts().len(), of)
}

/// The same, of `efforts` efforts whose cost and ratio are known.
fn cheapest(kind: Kind, place: usize, efforts: usize, of: impl Fn(usize) -> (f64, f64)) -> usize {
    if place == 0 || !kind.may_shrink() {
        return 0;
    }
    let price = price(place);
    let total = |at| {
        let (cost, ratio) = of(at);
        cost + price * ratio
    };
    // Of equals the cheaper.
    (1..efforts).fold(0, |best, at| if total(at) < total(best) { at } else { best })
}

/// The price that moves most guest bytes in a time, and spends what is free.
pub(super) fn settle(costs: &Costs, mix: &Mix, terms: &Terms, at_best: bool) -> Price {
    let efforts = 0..costs.efforts().len();
    // What there is of each kind, and what each effort costs and yields for it.
    type Known = (Kind, f64, Vec<(f64, f64)>);
    let kinds: Vec<Known> = mix
        .shares()
        .filter(|(_, share)| *share > 0.0)
        .map(|(kind, share)| {
            let of = |at| (costs.cost(at, kind, at_best), costs.ratio(at, kind));
            (kind, share, efforts.clone().map(of).collect())
        })
        .collect();
    let at = |place| {
        let mut sum = (0.0, 0.0);
        for (kind, share, known) in &kinds {
            let (cost, ratio) = known[cheapest(*kind, place, known.len(), |at| known[at])];
            sum.0 += share * cost;
            sum.1 += share * ratio;
        }
        sum
    };
    // How much longer the link takes than the processors.
    let link = |(encoding, wire): (f64, f64)| wire * terms.link_ns - terms.processor_ns(encoding);
    // How much of what is free is left.
    let free = |(encoding, _): (f64, f64)| terms.free_ns - encoding * terms.crowding;
    let (mut balanced, mut spent) =
        (None, (terms.free_ns <= terms.handling_ns * FREE_SHARE_MIN).then_some(0.0));
    let mut before = at(0);
    if link(before) <= 0.0 {
        balanced = Some(0.0);
    }
    for place in 1..=PRICES {
        let here = at(place);
        if balanced.is_none() && link(here) <= 0.0 {
            balanced = Some(between(place, link(before), link(here)));
        }
        if spent.is_none() && (free(here) < 0.0 || price(place) > FREE_PRICE_MAX) {
            let most =
                if free(here) < 0.0 { between(place, free(before), free(here)) } else { place as f64 - 1.0 };
            spent = Some(most);
        }
        before = here;
    }
    let most = PRICES as f64;
    Price(balanced.unwrap_or(most).max(spent.unwrap_or(most)))
}

/// Where between the place before this one and this one something falls to zero.
fn between(place: usize, before: f64, here: f64) -> f64 {
    let fall = before - here;
    let share = if fall > 0.0 { (before / fall).clamp(0.0, 1.0) } else { 1.0 };
    place as f64 - 1.0 + share
}
