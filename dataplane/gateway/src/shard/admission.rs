//! Who may introduce itself next. Strangers may be many; places for their handshakes and the processor's time for them are few.
//!
//! All that is known of a stranger before its handshake is where it comes from, so both are shared by [`Origin`]. One that has
//! said its first word waits for its turn, and turns go around among origins: a flood from one address delays another address
//! by one handshake, however many it sends. Where places run out, the origin that has most of them gives one up, and there
//! whoever has come least far: connections that say nothing cost those nothing that do, not even behind the same address.

use super::budget::Budget;
use crate::limits::{HANDSHAKES_MAX, ORIGINS_REMEMBERED_MAX, STRANGER_HANDSHAKES};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Where strangers come from: an IPv4 address, or the 64 bits of an IPv6 address that a site is given (RFC 6177 gives it more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin(u128);

impl Origin {
    /// Of a connection; those of unix sockets, and those whose address is not known, are one.
    pub(super) fn of(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            None => Self(0),
            Some(IpAddr::V4(address)) => Self(address.to_ipv6_mapped().to_bits()),
            Some(IpAddr::V6(address)) => Self(address.to_bits() & !u128::from(u64::MAX)),
        }
    }
}

/// How far a stranger has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It has said nothing yet, or not all of its first word.
    Silent,
    /// It waits for its turn.
    Waiting,
    /// Its handshake goes on.
    Begun,
}

/// A place, for as long as the process runs.
pub(super) type PlaceId = u64;

struct Place<T> {
    id: PlaceId,
    origin: Origin,
    stage: Stage,
    who: T,
}

/// What is to be done about those that wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    /// It is this one's turn.
    Begins(T),
    /// Somebody waits, and has to for this long.
    In(Duration),
    Nobody,
}

/// Places and turns. `T` is how their holders are told.
pub(super) struct Admission<T> {
    /// At most [`HANDSHAKES_MAX`], the oldest first.
    places: Vec<Place<T>>,
    turns: Budget,
    next_id: PlaceId,
    /// When origins had their last turns, in turns: at most [`ORIGINS_REMEMBERED_MAX`].
    served: Vec<(Origin, u64)>,
    turn: u64,
}

impl<T: Clone> Admission<T> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            places: Vec::new(),
            turns: Budget::new(STRANGER_HANDSHAKES, now),
            next_id: 0,
            served: Vec::new(),
            turn: 0,
        }
    }

    /// Somebody has come. Returns its place, and who makes room for it: that may be itself.
    pub(super) fn enter(&mut self, origin: Origin, who: T) -> (PlaceId, Option<T>) {
        let id = self.next_id;
        self.next_id += 1;
        self.places.push(Place { id, origin, stage: Stage::Silent, who });
        (id, (self.places.len() > HANDSHAKES_MAX).then(|| self.displace()).flatten())
    }

    fn displace(&mut self) -> Option<T> {
        let held = |origin| self.places.iter().filter(|place| place.origin == origin).count();
        let cost = |(at, place): (usize, &Place<T>)| (usize::MAX - held(place.origin), place.stage, at);
        let at = self.places.iter().enumerate().map(cost).min()?.2;
        Some(self.places.remove(at).who)
    }

    /// It has said its first word.
    pub(super) fn knock(&mut self, id: PlaceId) {
        if let Some(place) = self.places.iter_mut().find(|place| place.id == id) {
            place.stage = Stage::Waiting;
        }
    }

    /// It needs its place no longer.
    pub(super) fn leave(&mut self, id: PlaceId) {
        self.places.retain(|place| place.id != id);
    }

    /// Whose turn it is.
    pub(super) fn next(&mut self, now: Instant) -> Next<T> {
        let last_turn =
            |origin| self.served.iter().find(|(of, _)| *of == origin).map_or(0, |(_, turn)| *turn);
        let waiting = self.places.iter().enumerate().filter(|(_, place)| place.stage == Stage::Waiting);
        let Some((_, at)) = waiting.map(|(at, place)| (last_turn(place.origin), at)).min() else {
            return Next::Nobody;
        };
        if let Err(wait) = self.turns.take(now) {
            return Next::In(wait);
        }
        let place = &mut self.places[at];
        place.stage = Stage::Begun;
        let (origin, who) = (place.origin, place.who.clone());
        self.remember(origin);
        Next::Begins(who)
    }

    fn remember(&mut self, origin: Origin) {
        self.turn += 1;
        self.served.retain(|(of, _)| *of != origin);
        if self.served.len() == ORIGINS_REMEMBERED_MAX {
            self.served.remove(0);
        }
        self.served.push((origin, self.turn));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn origin(number: u32) -> Origin {
        Origin::of(Some(IpAddr::V4(number.into())))
    }

    /// One whose first turns are used up.
    fn busy(now: Instant) -> Admission<u32> {
        let mut admission = Admission::new(now);
        while admission.turns.take(now).is_ok() {}
        admission
    }

    #[test]
    fn an_origin_is_an_address_or_what_a_site_is_given() {
        let of = |text: &str| Origin::of(text.parse().ok());
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:2:4:5:6:7"));
        assert_ne!(of("2001:db8:1:2::3"), of("2001:db8:1:3::3"));
        assert_eq!(of("no address"), Origin::of(None));
    }

    #[test]
    fn who_says_nothing_makes_room_for_who_does_behind_the_same_address() {
        let mut admission = Admission::new(Instant::now());
        let (friend, _) = admission.enter(origin(1), 0);
        admission.knock(friend);
        for stranger in 1..10_000 {
            if let (_, Some(displaced)) = admission.enter(origin(1), stranger) {
                assert_ne!(displaced, 0, "after {stranger} strangers that said nothing");
            }
            assert!(admission.places.len() <= HANDSHAKES_MAX);
        }
        assert_eq!(admission.next(Instant::now()), Next::Begins(0));
        // Nor does anybody displace it now.
        let displaced: Vec<u32> =
            (0..1000).filter_map(|stranger| admission.enter(origin(1), 10_000 + stranger).1).collect();
        assert!(displaced.len() == 1000 && !displaced.contains(&0));
    }

    /// However many a flood sends, another address waits for one handshake of each other origin at most.
    #[test]
    fn a_flood_of_first_words_delays_another_address_by_one_turn() {
        let mut now = Instant::now();
        let mut admission = busy(now);
        let flood = |admission: &mut Admission<u32>, who: u32| {
            let (id, displaced) = admission.enter(origin(who % 4), 1000 + who);
            admission.knock(id);
            assert_ne!(displaced, Some(7), "the flood displaced another address");
        };
        (0..10_000).for_each(|who| flood(&mut admission, who));
        let (friend, displaced) = admission.enter(origin(99), 7);
        admission.knock(friend);
        assert!(displaced.is_some_and(|who| who != 7));
        let mut turns = 0;
        for who in 0.. {
            flood(&mut admission, who);
            match admission.next(now) {
                Next::Begins(7) => break,
                Next::Begins(_) => turns += 1,
                Next::In(wait) => now += wait,
                Next::Nobody => unreachable!("all of them wait"),
            }
            assert!(turns <= 4, "four origins had {turns} turns while another waited");
        }
    }

    #[test]
    fn turns_go_around_among_origins() {
        let mut now = Instant::now();
        let mut admission = busy(now);
        let mut had: BTreeMap<u32, u32> = BTreeMap::new();
        for who in 0..60 {
            // One has ten times as many as each of the others.
            let (id, _) = admission.enter(origin(if who < 50 { 1 } else { who }), who);
            admission.knock(id);
        }
        while had.values().sum::<u32>() < 11 {
            match admission.next(now) {
                Next::Begins(who) => *had.entry(if who < 50 { 1 } else { who }).or_default() += 1,
                Next::In(wait) => now += wait,
                Next::Nobody => break,
            }
        }
        assert_eq!(had.len(), 11, "{had:?}");
        assert!(had.values().all(|turns| *turns == 1), "{had:?}");
    }

    #[test]
    fn who_has_left_has_no_turn_and_what_is_remembered_is_bounded() {
        let mut now = Instant::now();
        let mut admission = Admission::new(now);
        let (id, _) = admission.enter(origin(1), 1);
        admission.knock(id);
        admission.leave(id);
        assert_eq!(admission.next(now), Next::Nobody);
        for who in 0..5_000 {
            let (id, _) = admission.enter(origin(who), who);
            admission.knock(id);
            while let Next::In(wait) = admission.next(now) {
                now += wait;
            }
            admission.leave(id);
        }
        assert!(admission.places.is_empty() && admission.served.len() == ORIGINS_REMEMBERED_MAX);
    }
}
