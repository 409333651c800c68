use super::*;
use crate::limits::ZSTD_LEVEL_MAX;

const BATCH: usize = 256 * 1024;
const ZSTD_1: Effort = Effort::Zstd { level: 1 };
const ZSTD_3: Effort = Effort::Zstd { level: 3 };
/// A kind that lz4 shrinks to about half.
const HALF: Kind = Kind::ALL[4];

/// What an effort costs here, and what it yields.
fn truth(effort: Effort) -> (f64, f64) {
    match effort {
        Effort::Raw => (0.0, 1.0),
        Effort::Lz4 => (1.6, 0.4),
        Effort::Zstd { level: 1 } => (2.9, 0.25),
        Effort::Zstd { .. } => (4.0, 0.22),
    }
}

/// `batches` batches on a processor that is so much slower; returns what was taken.
fn run(policy: &mut Policy, terms: &Terms, batches: usize, slow: f64) -> Vec<Effort> {
    run_of(HALF, policy, terms, batches, slow)
}

/// The same of batches of a kind.
fn run_of(kind: Kind, policy: &mut Policy, terms: &Terms, batches: usize, slow: f64) -> Vec<Effort> {
    let mut taken = Vec::new();
    for batch in 0..batches {
        if batch % 8 == 0 {
            policy.adapt(terms);
        }
        let kind = policy.looks().then_some(kind);
        let effort = policy.choose(BATCH, kind);
        let (cost, ratio) = truth(effort);
        if effort != Effort::Raw {
            let encoded_bytes = (ratio * BATCH as f64) as u64;
            let tally = Tally { zstd_bytes: BATCH as u64, encoded_bytes, ..Tally::default() };
            let cost_ns = (cost * slow * BATCH as f64) as u64;
            policy.observe(effort, kind, Choice::Structured, &tally, cost_ns);
        }
        taken.push(effort);
    }
    taken
}

fn share(taken: &[Effort], wanted: impl Fn(Effort) -> bool) -> f64 {
    taken.iter().filter(|effort| wanted(**effort)).count() as f64 / taken.len() as f64
}

fn adaptive() -> Policy {
    Policy::new(Mode::Adaptive { level: 3 })
}

/// A link of so many Mbit/s, and one thread.
fn link(megabits: f64) -> Terms {
    Terms { link_ns: 8e3 / megabits, handling_ns: 0.7, free_ns: 0.0, workers: 1, crowding: 1.0 }
}

#[test]
fn an_endless_link_gets_raw_batches() {
    let taken = run(&mut adaptive(), &Terms { link_ns: 0.0, ..link(1e3) }, 2000, 1.0);
    assert!(taken.iter().all(|effort| *effort == Effort::Raw));
}

#[test]
fn a_hundred_megabit_gets_the_strongest() {
    let taken = run(&mut adaptive(), &link(100.0), 1000, 1.0);
    assert!(share(&taken[100..], |effort| effort == ZSTD_3) > 0.95, "{:?}", &taken[100..120]);
}

#[test]
fn processor_and_link_are_both_used_in_between() {
    // 2 Gbit/s: 4 ns a byte raw. lz4 alone: 2.3 ns of processor, 1.6 ns of link; some raw batches are better.
    let taken = run(&mut adaptive(), &link(2000.0), 4000, 1.0);
    let mean = |of: fn((f64, f64)) -> f64| {
        taken[1000..].iter().map(|effort| of(truth(*effort))).sum::<f64>() / 3000.0
    };
    let (processor, wire) = (0.7 + mean(|truth| truth.0), mean(|truth| truth.1) * 4.0);
    assert!((processor - wire).abs() < 0.1, "{processor} and {wire}");
    assert!(processor.max(wire) < 2.2, "{processor} and {wire}");
}

#[test]
fn several_threads_afford_more() {
    let four = Terms { workers: 4, ..link(2000.0) };
    let taken = run(&mut adaptive(), &four, 2000, 1.0);
    assert!(share(&taken[500..], |effort| matches!(effort, Effort::Zstd { .. })) > 0.9);
}

#[test]
fn what_is_free_is_spent_and_no_more() {
    let terms = Terms { link_ns: 0.0, free_ns: 1.0, ..link(1e3) };
    let taken = run(&mut adaptive(), &terms, 4000, 1.0);
    let spent = taken[1000..].iter().map(|effort| truth(*effort).0).sum::<f64>() / 3000.0;
    assert!((0.9..1.05).contains(&spent), "{spent}");
}

#[test]
fn recovers_when_a_busy_time_is_over() {
    let mut policy = adaptive();
    run(&mut policy, &link(1000.0), 500, 1.0);
    let busy = run(&mut policy, &link(1000.0), 300, 50.0);
    assert!(share(&busy[200..], |effort| effort == Effort::Raw) > 0.85, "does not yield to a slow core");
    let after = run(&mut policy, &link(1000.0), 1500, 1.0);
    assert!(
        share(&after[1000..], |effort| effort == Effort::Raw) < 0.1,
        "does not come back: {}",
        share(&after[1000..], |effort| effort == Effort::Raw)
    );
}

#[test]
fn what_an_odd_batch_taught_is_forgotten() {
    let (mut policy, beside) = (adaptive(), Kind::ALL[5]);
    run(&mut policy, &link(400.0), 100, 1.0);
    run_of(beside, &mut policy, &link(400.0), 100, 1.0);
    // Batches of the kernel's own code, say: they take long and come to little.
    let tally = Tally { zstd_bytes: BATCH as u64, encoded_bytes: BATCH as u64 * 9 / 10, ..Tally::default() };
    for effort in [ZSTD_1, ZSTD_3].repeat(32) {
        policy.observe(effort, Some(HALF), Choice::Structured, &tally, 10 * BATCH as u64);
    }
    let taken = run(&mut policy, &link(400.0), 100, 1.0);
    assert!(share(&taken, |effort| effort == Effort::Lz4) > 0.9, "believes what was not");
    // The kind beside it is compressed all the while.
    run_of(beside, &mut policy, &link(400.0), 1000, 1.0);
    let taken = run(&mut policy, &link(400.0), 100, 1.0);
    assert!(share(&taken, |effort| matches!(effort, Effort::Zstd { .. })) > 0.8, "{taken:?}");
}

#[test]
fn exploring_is_rare_where_it_fails() {
    let mut policy = adaptive();
    // One good moment, long ago.
    run(&mut policy, &link(1000.0), 100, 1.0);
    let taken = run(&mut policy, &link(1000.0), 20_000, 1000.0);
    let tries = taken[1000..].iter().filter(|effort| **effort != Effort::Raw).count();
    // One in 200 is what pays even so; the rest are tries.
    assert!(tries < 150, "{tries} tries");
}

#[test]
fn random_batches_pass_whatever_the_price() {
    let mut policy = adaptive();
    policy.adapt(&link(1.0));
    for _ in 0..100 {
        assert_eq!(policy.choose(BATCH, Some(Kind::ALL[Kind::COUNT - 1])), Effort::Raw);
    }
}

#[test]
fn fixed_modes_stay() {
    for (mode, effort) in [
        (Mode::None, Effort::Raw),
        (Mode::Lz4, Effort::Lz4),
        (Mode::Zstd { level: 3 }, ZSTD_3),
        (Mode::Zstd { level: 0 }, ZSTD_3),
        (Mode::Zstd { level: 22 }, Effort::Zstd { level: 22 }),
        (Mode::Zstd { level: 1000 }, Effort::Zstd { level: ZSTD_LEVEL_MAX }),
    ] {
        let mut policy = Policy::new(mode);
        assert!(!policy.looks() && !policy.is_resting());
        for terms in [Terms::default(), link(1.0), link(1e6)] {
            policy.adapt(&terms);
            assert_eq!(policy.choose(BATCH, None), effort);
            policy.observe(effort, None, Choice::Structured, &Tally::default(), u64::MAX);
            policy.rest();
            assert_eq!(policy.choose(0, None), effort);
        }
    }
}

#[test]
fn early_refusals_teach_nothing() {
    let mut policy = adaptive();
    let tally = Tally { raw_bytes: BATCH as u64, encoded_bytes: BATCH as u64, ..Tally::default() };
    policy.observe(Effort::Lz4, Some(HALF), Choice::Raw(RawReason::Sampled), &tally, 1);
    assert_eq!(policy.costs.measured(Effort::Lz4, HALF), None);
    policy.observe(Effort::Lz4, Some(HALF), Choice::Raw(RawReason::Fruitless), &tally, 2 * BATCH as u64);
    assert_eq!(policy.costs.measured(Effort::Lz4, HALF), Some(2.0));
}

#[test]
fn bounds_limit_what_is_chosen_and_keep_what_was_learned() {
    use crate::mode::Mode as PathMode;
    let mut policy = adaptive();
    run(&mut policy, &link(400.0), 2000, 1.0);
    let learned = policy.costs.measured(ZSTD_1, HALF);
    assert!(learned.is_some());
    let efforts = |policy: &mut Policy, mode: PathMode| {
        policy.bound(&mode.profile().codec);
        policy.efforts().to_vec()
    };
    assert_eq!(efforts(&mut policy, PathMode::Internet), [Effort::Raw, ZSTD_1, ZSTD_3]);
    assert_eq!(policy.costs.measured(ZSTD_1, HALF), learned);
    let taken = run(&mut policy, &link(2_000.0), 500, 1.0);
    assert!(taken.iter().all(|effort| *effort != Effort::Lz4));
    assert_eq!(efforts(&mut policy, PathMode::Datacenter), [Effort::Raw, Effort::Lz4, ZSTD_1]);
    let taken = run(&mut policy, &link(50.0), 500, 1.0);
    assert!(taken.iter().all(|effort| *effort != ZSTD_3) && taken.contains(&ZSTD_1));
    assert_eq!(efforts(&mut policy, PathMode::Hybrid), [Effort::Raw, Effort::Lz4, ZSTD_1, ZSTD_3]);
}

#[test]
fn bounds_do_not_touch_an_effort_that_was_asked_for() {
    for mode in [Mode::None, Mode::Lz4, Mode::Zstd { level: 3 }] {
        let mut policy = Policy::new(mode);
        let asked = policy.efforts().to_vec();
        policy.bound(&crate::mode::Mode::Internet.profile().codec);
        assert_eq!(policy.efforts(), asked);
    }
}
