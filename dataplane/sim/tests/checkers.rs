//! The checkers look: a harness that is broken on purpose is found out, and a run is its seed.

use novacron_sim::{Failure, Plan, Sabotage, Scenario, run};

/// The first failure among runs that are broken in the same way, where each alone may have had no occasion.
fn first_failure(scenario: Scenario, sabotage: Sabotage) -> Option<Failure> {
    (0..160).find_map(|seed| run(Plan::for_scenario(scenario, seed).sabotaged(sabotage), false).err())
}

#[test]
fn a_frame_that_the_network_swallows_is_missed() {
    let failure = first_failure(Scenario::Calm, Sabotage::DropFrame(0)).expect("nobody missed the frame");
    assert!(failure.what.contains("no end") || failure.what.contains("did not wait"), "{failure}");
}

#[test]
fn a_stream_whose_loss_is_hidden_is_missed() {
    let failure = first_failure(Scenario::Cuts, Sabotage::HideLoss).expect("nobody missed the stream");
    assert!(failure.what.contains("no end") || failure.what.contains("did not wait"), "{failure}");
}

#[test]
fn a_bit_that_flips_behind_the_digest_is_seen() {
    let failure = first_failure(Scenario::Calm, Sabotage::FlipOutput).expect("nobody saw the bit");
    assert!(failure.what.contains("is not what was written"), "{failure}");
}

#[test]
fn bytes_handed_out_twice_are_seen() {
    let failure = first_failure(Scenario::Calm, Sabotage::RepeatOutput).expect("nobody saw the repetition");
    assert!(failure.what.contains("is not what was written"), "{failure}");
}

#[test]
fn a_gateway_that_reads_beyond_its_budget_is_seen() {
    let failure = first_failure(Scenario::Calm, Sabotage::IgnoreBudget).expect("nobody saw the excess");
    assert!(failure.what.contains("reserve"), "{failure}");
}

#[test]
fn one_credit_for_all_connections_is_a_deadlock_that_is_seen() {
    let failure = first_failure(Scenario::Gated, Sabotage::ShareCredit).expect("nobody missed the progress");
    assert!(failure.what.contains("no end in sight") || failure.what.contains("did not wait"), "{failure}");
}

#[test]
fn workers_that_forget_their_lanes_are_seen() {
    let forgetful = |seed| {
        let plan = Plan::for_scenario(Scenario::Calm, seed).with_workers([1, 4]);
        run(plan.sabotaged(Sabotage::ForgetLanes), false).err()
    };
    let failure = (0..40).find_map(forgetful).expect("nobody missed the memory");
    assert!(failure.what.contains("cannot be decoded"), "{failure}");
}

/// Pages come back from what workers remember, whichever side has them, or both.
// DWCP-72
#[test]
fn workers_remember_their_lanes_from_job_to_job() {
    for workers in [[1, 4], [4, 1], [3, 2]] {
        let recalled: u64 = (0..40)
            .map(|seed| {
                let plan = Plan::for_scenario(Scenario::Calm, seed).with_workers(workers);
                run(plan, false).unwrap_or_else(|failure| panic!("{workers:?}: {failure}")).recalled_bytes
            })
            .sum();
        assert!(recalled > 0, "{workers:?}");
    }
}

#[test]
fn a_failure_names_the_command_that_replays_it() {
    let failure = first_failure(Scenario::Calm, Sabotage::FlipOutput).expect("nobody saw the bit");
    let text = failure.to_string();
    assert!(text.contains(&format!("NOVACRON_SIM_SEED={} ", failure.seed)) && text.contains("cargo test"));
}

#[test]
fn one_seed_is_one_run() {
    for seed in 0..20 {
        let prints = [0, 1].map(|_| run(Plan::new(seed), false).map(|report| report.fingerprint));
        let [Ok(first), Ok(second)] = prints else { panic!("seed {seed} fails") };
        assert_eq!(first, second, "seed {seed}");
    }
}
