//! Frames through the kernel's program (`BPF_PROG_TEST_RUN`) and through its twin in userspace: the same verdicts, bytes and
//! counters. Needs root; where the program cannot be loaded each test says why and passes.

mod shared;

use novacron_protocol::probe::frame::{Verdict, mapped};
use novacron_protocol::probe::key::{Side, keys};
use novacron_protocol::probe::packet::{Header, is_authentic};
use novacron_protocol::probe::responder::Outcome;
use shared::{Both, EPOCH, Frame, internet_sum, secret, secret_6, v6};

macro_rules! both {
    () => {
        match Both::new([0; 16]) {
            Some(both) => both,
            None => return,
        }
    };
}

fn answer(verdict: Verdict) -> Vec<u8> {
    match verdict {
        Verdict::Transmit(answer) => answer,
        other => panic!("{other:?}"),
    }
}

/// DWCP-90, DWCP-91, DWCP-94: over IPv4, with and without options, over IPv6 and within VLANs; checksums fit, addresses are swapped, and
/// the answer is authenticated and no longer than the probe.
#[test]
fn a_known_peers_probe_is_answered() {
    let mut both = both!();
    let mut sequence = 10;
    for vlans in [vec![], vec![5], vec![7, 5]] {
        for (is_v4, options) in [(true, 0), (true, 1), (true, 10), (false, 0)] {
            for (length, filled) in [(64, 0), (64, 7), (65, 0), (700, 0), (1472, 0)] {
                sequence += 1;
                let mut frame = if is_v4 { Frame::v4(sequence) } else { Frame::v6(sequence) };
                frame.vlans = vlans.clone();
                (frame.options, frame.filled, frame.header.length) = (options, filled, length);
                let bytes = frame.bytes();
                let answer = answer(both.agree(&bytes));
                assert!(answer.len() <= bytes.len());
                assert_eq!((&answer[..6], &answer[6..12]), (&bytes[6..12], &bytes[..6]));
                let ip = 14 + 4 * vlans.len();
                let (secret, side) =
                    if is_v4 { (secret(), Side::Dialler) } else { (secret_6(), Side::Acceptor) };
                let udp = if is_v4 { ip + 20 + 4 * options } else { ip + 40 };
                if is_v4 {
                    assert_eq!(internet_sum(&answer[ip..udp]), 0xffff, "IPv4's checksum");
                }
                // The pseudo-header: addresses, protocol, length.
                let addresses = if is_v4 { &answer[ip + 12..ip + 20] } else { &answer[ip + 8..ip + 40] };
                let pseudo = [addresses, &[0, 17, 0, 72], &answer[udp..]].concat();
                assert_eq!(internet_sum(&pseudo), 0xffff, "UDP's checksum");
                assert!(is_authentic(keys(&secret, side, EPOCH).answer, &answer[udp + 8..]));
                let header = Header::read(&answer[udp + 8..]).unwrap();
                assert_eq!((header.sequence, header.length), (sequence, length));
            }
        }
    }
    assert_eq!(both.count(Outcome::Answered), 60);
}

/// DWCP-93, DWCP-95, DWCP-97: what is not as it must be is dropped, counted and not answered.
#[test]
fn what_is_no_good_probe_is_dropped_and_counted() {
    let mut both = both!();
    let mut sequence = 100;
    let mut cases: Vec<(Outcome, Frame)> = Vec::new();
    for base in [Frame::v4, Frame::v6] {
        let mut case = |outcome, change: &dyn Fn(&mut Frame)| {
            sequence += 1;
            let mut frame = base(sequence);
            change(&mut frame);
            cases.push((outcome, frame));
        };
        case(Outcome::BadCookie, &|frame| frame.key[0] ^= 1);
        case(Outcome::BadCookie, &|frame| frame.key[1] ^= 1 << 63);
        case(Outcome::BadCookie, &|frame| frame.header.epoch = EPOCH + 2);
        case(Outcome::BadCookie, &|frame| frame.header.epoch = 0);
        case(Outcome::BadCookie, &|frame| frame.header.epoch = EPOCH - 1);
        case(Outcome::UnknownPeer, &|frame| frame.header.tag ^= 1 << 40);
        case(Outcome::UnknownPeer, &|frame| frame.header.tag = 0);
        case(Outcome::UnknownPeer, &|frame| frame.source[15] ^= 1);
        case(Outcome::Oversize, &|frame| frame.header.length = 1473);
        case(Outcome::Oversize, &|frame| frame.udp_length = Some(60_000));
        case(Outcome::Truncated, &|frame| frame.udp_length = Some(71));
        case(Outcome::Truncated, &|frame| frame.udp_length = Some(0));
        case(Outcome::Truncated, &|frame| frame.udp_length = Some(73));
        case(Outcome::Truncated, &|frame| frame.ip_length = Some(60));
        case(Outcome::Truncated, &|frame| frame.ip_length = Some(0));
        case(Outcome::Truncated, &|frame| frame.header.length = 63);
        case(Outcome::Malformed, &|frame| frame.header.heard = 1);
        case(Outcome::Malformed, &|frame| frame.header.received_ns = 1);
        case(Outcome::Malformed, &|frame| {
            frame.header.kind = novacron_protocol::probe::packet::Kind::Answer;
        });
    }
    let mut fragment = Frame::v4(900);
    fragment.fragment = 0x2000;
    cases.push((Outcome::Fragmented, fragment));
    let mut fragment = Frame::v6(900);
    (fragment.ipv6_fragment, fragment.fragment) = (true, 1);
    cases.push((Outcome::Fragmented, fragment));
    for (at, (outcome, frame)) in cases.iter().enumerate() {
        assert_eq!(both.agree(&frame.bytes()), Verdict::Drop(*outcome), "case {at}");
    }
    assert_eq!(both.count(Outcome::Answered), 0);
}

/// DWCP-97: others' traffic is left alone.
#[test]
fn what_is_not_for_the_responder_goes_on() {
    let mut both = both!();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Frame::v4(1).bytes();
        change(&mut bytes);
        bytes
    };
    let mut other_port = Frame::v4(1);
    other_port.port = 53;
    let mut later_fragment = Frame::v4(1);
    later_fragment.fragment = 3;
    let mut later_fragment_6 = Frame::v6(1);
    (later_fragment_6.ipv6_fragment, later_fragment_6.fragment) = (true, 8);
    let mut three_vlans = Frame::v4(1);
    three_vlans.vlans = vec![1, 2, 3];
    for bytes in [
        other_port.bytes(),
        later_fragment.bytes(),
        later_fragment_6.bytes(),
        three_vlans.bytes(),
        with(&|bytes| bytes[0] |= 1),
        with(&|bytes| bytes[13] = 6),
        with(&|bytes| bytes[23] = 6),
        with(&|bytes| bytes[14] = 0x44),
        with(&|bytes| bytes[14] = 0x65),
        with(&|bytes| bytes.truncate(40)),
        with(&|bytes| bytes.truncate(33)),
        with(&|bytes| bytes.truncate(15)),
    ] {
        assert_eq!(both.agree(&bytes), Verdict::Pass, "{bytes:02x?}");
    }
    assert_eq!(both.kernel.counters().read(), [0; 9]);
}

/// DWCP-97: where an address is given, probes to other ones pass by.
#[test]
fn probes_to_others_pass_by() {
    let Some(mut both) = Both::new(mapped(shared::HERE_4)) else { return };
    answer(both.agree(&Frame::v4(5).bytes()));
    let mut frame = Frame::v4(6);
    frame.destination[15] ^= 1;
    assert_eq!(both.agree(&frame.bytes()), Verdict::Pass);
    assert_eq!(both.agree(&Frame::v6(6).bytes()), Verdict::Pass);
    let Some(mut both) = Both::new(v6(2)) else { return };
    answer(both.agree(&Frame::v6(6).bytes()));
    assert_eq!(both.agree(&Frame::v4(6).bytes()), Verdict::Pass);
}

/// DWCP-95: each sequence number is answered once, also out of order; what is too old to tell is a replay.
#[test]
fn a_replay_is_dropped() {
    let mut both = both!();
    let start = 1_700_000_000_000_000_u64;
    for step in [0, 1, 2, 64, 63, 62, 500, 499, 3, 959, 4, 2000, 1999, 1100, 1_000_000, 999_500] {
        let bytes = Frame::v4(start + step).bytes();
        answer(both.agree(&bytes));
        assert_eq!(both.agree(&bytes), Verdict::Drop(Outcome::Replayed), "{step}");
    }
    for step in [999_000, 0, 5, 999_040] {
        assert_eq!(both.agree(&Frame::v4(start + step).bytes()), Verdict::Drop(Outcome::Replayed), "{step}");
    }
    // Another peer's numbers are its own.
    answer(both.agree(&Frame::v6(start).bytes()));
    answer(both.agree(&Frame::v4(0xffff_ffff_ffff_ffff).bytes()));
}

/// DWCP-96: beyond its rate a peer gets no answers, and the others theirs.
#[test]
fn a_peer_that_asks_too_often_is_not_answered() {
    let mut both = both!();
    let began = std::time::Instant::now();
    let mut answered = 0_u64;
    let mut asked = 0_u64;
    // Bounded by the clock: a machine that is slower than the rate could go on for ever.
    while both.count(Outcome::RateLimited) < 50 && began.elapsed().as_secs() < 20 {
        asked += 1;
        let (action, ..) = both.kernel.test_run(&Frame::v4(asked).bytes(), 1).unwrap();
        answered += u64::from(action == novacron_ebpf::test_run::Action::Transmit);
    }
    let earned = began.elapsed().as_nanos() as u64 / novacron_protocol::limits::PROBE_COST_NS;
    let burst = novacron_protocol::limits::PROBE_BURST_NS / novacron_protocol::limits::PROBE_COST_NS;
    assert!(answered <= burst + earned + 2, "{answered} answers of {asked}, {earned} earned");
    assert!(both.count(Outcome::RateLimited) >= 50, "{answered} answers of {asked} in {:?}", began.elapsed());
    let (action, ..) = both.kernel.test_run(&Frame::v6(1).bytes(), 1).unwrap();
    assert_eq!(action, novacron_ebpf::test_run::Action::Transmit);
}

/// DWCP-97: whatever the bytes, both say the same. A failure prints the frame.
#[test]
fn damaged_frames_are_judged_alike() {
    let mut both = both!();
    let mut state = 0x1234_5678_9abc_def0_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut verdicts = [0; 3];
    for sequence in 0..6_000 {
        let mut frame = if random(2) == 0 { Frame::v4(sequence) } else { Frame::v6(sequence) };
        frame.vlans = vec![9; random(3)];
        frame.header.length = [64, 64, 100, 1472][random(4)];
        frame.options = random(8);
        let mut bytes = frame.bytes();
        for _ in 0..random(4) {
            // Headers more than what fills the probe up.
            let at = random(bytes.len().min(140));
            bytes[at] = if random(2) == 0 { random(256) as u8 } else { bytes[at] ^ 1 << random(8) };
        }
        if random(4) == 0 {
            bytes.truncate(14 + random(bytes.len() - 14));
        }
        if random(8) == 0 {
            bytes.resize(bytes.len() + random(60), 0);
        }
        // The rate would make the clocks' difference matter.
        std::thread::sleep(std::time::Duration::from_micros(60));
        verdicts[match both.agree(&bytes) {
            Verdict::Pass => 0,
            Verdict::Drop(_) => 1,
            Verdict::Transmit(_) => 2,
        }] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 300), "{verdicts:?}");
}
