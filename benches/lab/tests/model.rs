//! What the model of a link promises, over arbitrary conditions, traffic and changes while it runs.

use novacron_lab::{Burst, Conditions, Count, Model, Nanos, Queue};
use proptest::prelude::*;

const MS: Nanos = 1_000_000;

/// Conditions that keep order.
fn in_order() -> impl Strategy<Value = Conditions> {
    let rate = prop_oneof![Just(None), (0.1f64..2000.0).prop_map(Some)];
    let queue = prop_oneof![
        Just(Queue::Default),
        (0.0f64..50.0).prop_map(Queue::Ms),
        (0.0f64..300.0).prop_map(Queue::Kb)
    ];
    let burst = prop_oneof![
        Just(None),
        (0.0f64..50.0, 1.0f64..50.0).prop_map(|(loss, frames)| Some(Burst::of(loss, frames)))
    ];
    (rate, 0.0f64..40.0, 0.0f64..20.0, 0.0f64..20.0, burst, 0.0f64..20.0, queue).prop_map(
        |(rate_mbit, delay_ms, jitter_ms, loss_percent, burst, duplicate_percent, queue)| Conditions {
            rate_mbit,
            delay_ms,
            jitter_ms,
            loss_percent,
            burst,
            duplicate_percent,
            queue,
            ..Conditions::default()
        },
    )
}

fn any_conditions() -> impl Strategy<Value = Conditions> {
    (in_order(), 0.0f64..30.0, 0.0f64..10.0, prop::bool::weighted(0.1)).prop_map(
        |(conditions, reorder_percent, reorder_ms, cut)| Conditions {
            reorder_percent,
            reorder_ms,
            cut,
            ..conditions
        },
    )
}

/// A frame comes after so many nanoseconds, or the conditions change.
#[derive(Clone, Debug)]
enum Event {
    Frame { after: Nanos, bytes: u32 },
    Change { after: Nanos, conditions: Conditions },
}

fn events(conditions: impl Strategy<Value = Conditions>) -> impl Strategy<Value = Vec<Event>> {
    let after = prop_oneof![Just(0), 0..100_000u64, 0..20 * MS];
    let frame = (after.clone(), 60u32..1514).prop_map(|(after, bytes)| Event::Frame { after, bytes });
    let change = (after, conditions).prop_map(|(after, conditions)| Event::Change { after, conditions });
    prop::collection::vec(prop_oneof![20 => frame, 1 => change], 0..300)
}

/// What went out.
#[derive(Clone, Debug, PartialEq)]
struct Out {
    number: usize,
    bytes: u32,
    due: Nanos,
    taken: Nanos,
}

/// Plays events, taking each frame at the first moment that the model names.
fn play(model: &mut Model<usize>, events: &[Event], mut at_each: impl FnMut(&Model<usize>)) -> Vec<Out> {
    let mut out = Vec::new();
    let mut now = 0;
    let mut number = 0;
    for event in events {
        let (Event::Frame { after, .. } | Event::Change { after, .. }) = event;
        let until = now + after;
        take_until(model, &mut now, until, &mut out);
        now = until;
        match event {
            Event::Frame { bytes, .. } => {
                model.offer(now, *bytes, number);
                number += 1;
            }
            Event::Change { conditions, .. } => model.set(now, conditions.clone()),
        }
        at_each(model);
    }
    take_until(model, &mut now, Nanos::MAX / 4, &mut out);
    at_each(model);
    out
}

fn take_until(model: &mut Model<usize>, now: &mut Nanos, until: Nanos, out: &mut Vec<Out>) {
    while let Some(next) = model.next_due().filter(|next| *next <= until) {
        assert!(
            next <= *now || model.take(next - 1).is_none(),
            "a frame was due before the model said that one is"
        );
        *now = next.max(*now);
        while let Some((number, bytes, due)) = model.take(*now) {
            assert!(due <= *now, "due at {due}, taken at {now}");
            out.push(Out { number, bytes, due, taken: *now });
        }
    }
}

fn sum(counts: &[Count]) -> (u64, u64) {
    (counts.iter().map(|count| count.frames).sum(), counts.iter().map(|count| count.bytes).sum())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_overtakes_unless_asked(start in in_order(), events in events(in_order()), seed: u64) {
        let mut model = Model::new(start, seed);
        let out = play(&mut model, &events, |_| ());
        for pair in out.windows(2) {
            prop_assert!(pair[0].number <= pair[1].number, "{pair:?}");
        }
        prop_assert_eq!(model.counters().reordered.frames, 0);
    }

    #[test]
    fn every_frame_is_accounted_for(start in any_conditions(), events in events(any_conditions()), seed: u64) {
        let mut model = Model::new(start, seed);
        let out = play(&mut model, &events, |model| {
            let is = model.counters();
            let came = is.entered.frames + is.duplicated.frames;
            let went = is.delivered.frames + is.lost.frames + is.queue_dropped.frames + is.refused.frames;
            assert_eq!(came, went + model.inside() as u64, "{is:?}");
        });
        let is = model.counters();
        prop_assert_eq!(model.inside(), 0, "all is out in the end");
        prop_assert_eq!(
            sum(&[is.entered, is.duplicated]),
            sum(&[is.delivered, is.lost, is.queue_dropped, is.refused])
        );
        prop_assert_eq!(is.delivered.frames, out.len() as u64);
    }

    #[test]
    fn the_rate_is_never_exceeded(start in in_order(), rate in 0.1f64..2000.0, events in events(in_order()), seed: u64) {
        let conditions = Conditions { rate_mbit: Some(rate), jitter_ms: 0.0, ..start };
        let frames: Vec<Event> = events.into_iter().filter(|event| matches!(event, Event::Frame { .. })).collect();
        let out = play(&mut Model::new(conditions, seed), &frames, |_| ());
        for pair in out.windows(2) {
            let needs = (f64::from(pair[1].bytes) * 8000.0 / rate) as Nanos;
            prop_assert!(pair[1].due - pair[0].due >= needs, "{pair:?}: {needs} ns for {} bytes", pair[1].bytes);
        }
    }

    #[test]
    fn no_frame_is_faster_than_its_way(start in in_order(), events in events(in_order()), seed: u64) {
        let frames: Vec<Event> = events.into_iter().filter(|event| matches!(event, Event::Frame { .. })).collect();
        let least = (start.delay_ms - start.jitter_ms).max(0.0) * 1e6;
        let mut came = Vec::new();
        let mut now = 0;
        for event in &frames {
            let Event::Frame { after, .. } = event else { continue };
            now += after;
            came.push(now);
        }
        for out in play(&mut Model::new(start, seed), &frames, |_| ()) {
            prop_assert!((out.due - came[out.number]) as f64 >= least - 2.0, "{out:?} came at {}", came[out.number]);
        }
    }

    #[test]
    fn one_seed_is_one_run(start in any_conditions(), events in events(any_conditions()), seed: u64) {
        let first = play(&mut Model::new(start.clone(), seed), &events, |_| ());
        prop_assert_eq!(first, play(&mut Model::new(start, seed), &events, |_| ()));
    }
}

/// Sends `frames` of 1000 bytes, one each `gap`.
fn stream(conditions: Conditions, frames: u64, gap: Nanos) -> (Model<usize>, Vec<Out>) {
    let mut model = Model::new(conditions, 7);
    let events: Vec<Event> = (0..frames).map(|_| Event::Frame { after: gap, bytes: 1000 }).collect();
    let out = play(&mut model, &events, |_| ());
    (model, out)
}

/// Asserts a share of `frames` within four standard errors.
fn assert_share(what: &str, is: u64, frames: u64, share: f64, variance_factor: f64) {
    let error = (share * (1.0 - share) / frames as f64 * variance_factor).sqrt();
    let is = is as f64 / frames as f64;
    assert!((is - share).abs() <= 4.0 * error, "{what}: {is} instead of {share} ± {error}");
}

#[test]
fn chances_are_what_was_asked() {
    const FRAMES: u64 = 300_000;
    let single = Conditions { loss_percent: 0.5, ..Conditions::default() };
    assert_share("loss", stream(single, FRAMES, 1000).0.counters().lost.frames, FRAMES, 0.005, 1.0);

    let burst = Burst::of(1.0, 20.0);
    let bursts = Conditions { burst: Some(burst), ..Conditions::default() };
    let (model, out) = stream(bursts, FRAMES, 1000);
    assert_share("bursts", model.counters().lost.frames, FRAMES, 0.01, burst.variance_factor());
    let runs = out.windows(2).filter(|pair| pair[1].number > pair[0].number + 1).count() as f64;
    let length = model.counters().lost.frames as f64 / runs;
    assert!((length - 20.0).abs() < 3.0, "runs of {length} instead of 20 frames");

    let twice = Conditions { duplicate_percent: 2.0, ..Conditions::default() };
    assert_share("copies", stream(twice, FRAMES, 1000).0.counters().duplicated.frames, FRAMES, 0.02, 1.0);

    // Held for 10 us, so that ten overtake.
    let held = Conditions { reorder_percent: 1.0, reorder_ms: 0.01, ..Conditions::default() };
    assert_share("reordering", stream(held, FRAMES, 1000).0.counters().reordered.frames, FRAMES, 0.01, 1.0);
}

#[test]
fn a_link_that_is_offered_too_much_gives_its_rate_and_drops_the_rest() {
    // 8 Mbit/s for 1 s, at 10 Mbit/s and at 4; the queue holds 10 frames.
    let link = |rate| Conditions { rate_mbit: Some(rate), queue: Queue::Kb(10.0), ..Conditions::default() };
    assert_eq!(stream(link(10.0), 1000, MS).1.len(), 1000);
    let (model, out) = stream(link(4.0), 1000, MS);
    assert_eq!(model.counters().queue_dropped.frames, 1000 - out.len() as u64);
    assert!((500..=511).contains(&out.len()), "half and what the queue held in the end: {}", out.len());
    let waited = out.iter().map(|out| out.due - (out.number as Nanos + 1) * MS).max().unwrap();
    assert!(waited <= 20 * MS, "10 frames of 2 ms, and it took {waited} ns");
}

#[test]
fn a_new_rate_holds_for_what_waits() {
    let mut model = Model::new(Conditions { rate_mbit: Some(1.0), ..Conditions::default() }, 1);
    for number in 0..10 {
        model.offer(0, 1000, number);
    }
    // Each takes 8 ms; after 20 ms two are out and the third is begun again at a hundredth of that.
    let mut out = Vec::new();
    take_until(&mut model, &mut 0, 20 * MS, &mut out);
    assert_eq!(out.len(), 2);
    model.set(20 * MS, Conditions { rate_mbit: Some(100.0), ..Conditions::default() });
    take_until(&mut model, &mut (20 * MS), 21 * MS, &mut out);
    assert_eq!(out.len(), 10);
    assert_eq!(out[9].due, 20 * MS + 8 * 80_000);
}

#[test]
fn a_cut_loses_what_is_under_way_and_all_that_comes() {
    let delayed = Conditions { delay_ms: 10.0, ..Conditions::default() };
    let mut model = Model::new(delayed.clone(), 1);
    model.offer(0, 100, 0);
    model.set(5 * MS, Conditions { cut: true, ..delayed.clone() });
    model.offer(6 * MS, 100, 1);
    assert_eq!(model.next_due(), None);
    model.set(7 * MS, delayed);
    model.offer(7 * MS, 100, 2);
    assert_eq!(model.take(17 * MS), Some((2, 100, 17 * MS)));
    assert_eq!(model.counters().lost.frames, 2);
}

#[test]
fn jitter_stays_within_its_bounds_and_uses_them_under_load() {
    let conditions = Conditions { delay_ms: 20.0, jitter_ms: 5.0, ..Conditions::default() };
    // 10 s; a new value each 20 ms.
    let (_, out) = stream(conditions, 100_000, 100_000);
    let delay = |out: &Out| (out.due as f64 - (out.number as f64 + 1.0) * 1e5) / 1e6;
    let delays: Vec<f64> = out.iter().map(delay).collect();
    let (least, most) =
        (delays.iter().copied().fold(f64::MAX, f64::min), delays.iter().copied().fold(0.0, f64::max));
    assert!(least >= 15.0 - 1e-3 && most <= 25.0 + 1e-3, "{least} to {most} ms");
    assert!(least < 16.0 && most > 24.0, "{least} to {most} ms");
    let mean = delays.iter().sum::<f64>() / delays.len() as f64;
    assert!((mean - 20.0).abs() < 0.7, "{mean} ms on average");
}

#[test]
fn a_frame_that_was_read_late_says_so_unless_it_had_to_wait_anyway() {
    let late = |rate_mbit| {
        let mut model = Model::new(Conditions { rate_mbit, delay_ms: 10.0, ..Conditions::default() }, 1);
        // 1000 bytes take 1 ms at 8 Mbit/s. Two frames are read 5 ms late, a third when the first still waits.
        model.offer_since(5 * MS, 0, 1000, 0);
        model.offer_since(5 * MS, 0, 1000, 1);
        model.offer_since(6 * MS, 2 * MS, 1000, 2);
        let mut due = Vec::new();
        while let Some(next) = model.next_due() {
            due.extend(model.take(next).map(|(_, _, due)| (next - due) / MS));
        }
        due
    };
    assert_eq!(late(None), [5, 5, 4]);
    assert_eq!(late(Some(8.0)), [5, 5, 0]);
}

#[test]
fn frames_inside_are_bounded() {
    let mut model = Model::new(Conditions { delay_ms: 1000.0, ..Conditions::default() }, 1);
    let beyond = novacron_lab::limits::FRAMES_MAX + 10;
    for number in 0..beyond {
        model.offer(0, 60, number);
    }
    assert_eq!(model.inside(), novacron_lab::limits::FRAMES_MAX);
    assert_eq!(model.counters().queue_dropped.frames, 10);
}
