//! What a pairing gives to those who have the code, and what to everybody else.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::tests::Keys as SiteKeys;

struct Sites {
    a: SiteKeys,
    b: SiteKeys,
}

fn sites() -> &'static Sites {
    static SITES: std::sync::OnceLock<Sites> = std::sync::OnceLock::new();
    SITES.get_or_init(|| Sites { a: SiteKeys::of("site-a"), b: SiteKeys::of("site-b") })
}

fn code(byte: u8) -> Code {
    let text = Code::make().expect("random").to_text();
    if byte == 0 {
        return text.parse().expect("a code");
    }
    // The same code each time.
    static FIXED: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    FIXED.get_or_init(|| text.to_string()).parse().expect("a code")
}

fn offer(expires_in: u64) -> (Offer, SystemTime) {
    let now = sites().b.now;
    (Offer::new(code(1), sites().b.bundle(), now + Duration::from_secs(expires_in)), now)
}

fn accept(code: Code) -> (Accepting, Vec<u8>) {
    Accepting::new(code, sites().a.bundle()).expect("begun")
}

/// Goes up to message 4.
fn compared(offer: &mut Offer, now: SystemTime) -> (Offered, Compared) {
    let (accepting, one) = accept(code(1));
    let (greeted, two) = offer.greet(&one, now).expect("greeted");
    let (shown, three) = accepting.show(&two).expect("shown");
    let (offered, four) = greeted.prove(offer, &three, now).expect("proven");
    (offered, shown.compare(&four, now).expect("compared"))
}

#[test]
fn both_sides_see_each_other_and_trust_when_both_say_yes() {
    for (a_says, b_says) in [(true, true), (true, false), (false, true)] {
        let (mut offer, now) = offer(60);
        let (offered, compared) = compared(&mut offer, now);
        assert_eq!(offered.peer, sites().a.bundle());
        assert_eq!(compared.peer, sites().b.bundle());
        let (decided, five) = compared.decide(a_says).expect("decided");
        let agreed = offered.agreed(&five);
        assert_eq!(agreed.is_ok(), a_says, "the offering side trusts nobody who said no");
        let Ok(agreed) = agreed else { continue };
        let six = agreed.conclude(b_says).expect("concluded");
        assert_eq!(decided.concluded(&six).is_ok(), a_says && b_says);
    }
}

#[test]
fn a_code_is_good_once() {
    let (mut offer, now) = offer(60);
    let (second, one) = accept(code(1));
    let (greeted, two) = offer.greet(&one, now).expect("greeted before the first has proven");
    let _first = compared(&mut offer, now);
    let (_, three) = second.show(&two).expect("shown");
    assert_eq!(greeted.prove(&mut offer, &three, now).expect_err("refused"), PairingError::Used);
    assert_eq!(offer.greet(&one, now).expect_err("refused"), PairingError::Used);
}

#[test]
fn a_code_has_its_time_and_its_tries() {
    let (mut offer_, now) = offer(60);
    let later = now + Duration::from_secs(60);
    let (accepting, one) = accept(code(1));
    let (greeted, two) = offer_.greet(&one, now).expect("greeted");
    let (_, three) = accepting.show(&two).expect("shown");
    assert_eq!(greeted.prove(&mut offer_, &three, later).expect_err("late"), PairingError::Expired);
    assert_eq!(offer_.greet(&one, later).expect_err("late"), PairingError::Expired);

    let (mut offer, now) = offer(60);
    for _ in 0..PAIRING_TRIES_MAX {
        let (accepting, one) = accept(code(0));
        let (greeted, two) = offer.greet(&one, now).expect("greeted");
        let (_, three) = accepting.show(&two).expect("shown");
        assert_eq!(greeted.prove(&mut offer, &three, now).expect_err("wrong"), PairingError::Code);
    }
    assert_eq!(offer.greet(&accept(code(1)).1, now).expect_err("ended"), PairingError::Tries);
}

#[test]
fn whoever_answers_without_the_code_is_not_believed() {
    let now = sites().b.now;
    for forge in 0..4 {
        let liar = Offer::new(code(0), sites().b.bundle(), now + Duration::from_secs(60));
        let (accepting, one) = accept(code(1));
        let (mut greeted, two) = liar.greet(&one, now).expect("greeted");
        let (shown, three) = accepting.show(&two).expect("shown");
        greeted.keys.said(&three);
        let four = match forge {
            0 => greeted.keys.seal_offering(sites().b.bundle().to_pem().as_bytes()).expect("sealed"),
            1 => sites().b.bundle().to_pem().into_bytes(),
            2 => three,
            _ => Vec::new(),
        };
        assert_eq!(shown.compare(&four, now).expect_err("forged"), PairingError::Code);
    }
}

#[test]
fn what_is_sent_back_is_refused() {
    let (mut offer, now) = offer(60);
    let (accepting, one) = accept(code(1));
    assert_eq!(accepting.show(&one).expect_err("reflected"), PairingError::Reflected);
    let (accepting, one) = accept(code(1));
    let (greeted, two) = offer.greet(&one, now).expect("greeted");
    let (shown, three) = accepting.show(&two).expect("shown");
    assert_eq!(shown.compare(&three, now).expect_err("reflected"), PairingError::Code);
    // Nor does the offer take its own message 4 for a message 5.
    let (offered, four) = greeted.prove(&mut offer, &three, now).expect("proven");
    assert_eq!(offered.agreed(&four).expect_err("reflected"), PairingError::Code);
}

#[test]
fn messages_of_one_connection_open_in_no_other() {
    let (mut first, now) = offer(60);
    let (accepting, one) = accept(code(1));
    let (_, two) = first.greet(&one, now).expect("greeted");
    let (_, three) = accepting.show(&two).expect("shown");
    // The same code, the same messages, a new nonce.
    let (again, _) = first.greet(&one, now).expect("greeted");
    assert_eq!(again.prove(&mut first, &three, now).expect_err("replayed"), PairingError::Code);
}

#[test]
fn a_site_does_not_pair_with_itself_and_other_versions_are_named() {
    let (mut offer, now) = offer(60);
    let (accepting, one) = Accepting::new(code(1), sites().b.bundle()).expect("begun");
    let (greeted, two) = offer.greet(&one, now).expect("greeted");
    let (_, three) = accepting.show(&two).expect("shown");
    let why = greeted.prove(&mut offer, &three, now).expect_err("itself");
    assert!(matches!(why, PairingError::SameSite(_)), "{why}");
    let mut next = one.clone();
    next[7] = 2;
    for wrong in [&next[..], &one[..39], b"", b"GET / HTTP/1.1\r\n\r\n"] {
        let (fresh, now) = self::offer(60);
        assert_eq!(fresh.greet(wrong, now).expect_err("foreign"), PairingError::Foreign);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// One bit changed, bytes cut off or added, anywhere in any message: nobody is trusted.
    #[test]
    fn any_change_on_the_way_ends_it(which in 1..=6_usize, at: prop::sample::Index, bit in 0..8_u8, cut in 0..3_u8) {
        let change = |number: usize, message: Vec<u8>| {
            if number != which {
                return message;
            }
            let mut message = message;
            let at = at.index(message.len());
            match cut {
                0 => message[at] ^= 1 << bit,
                1 => message.truncate(at),
                _ => message.push(bit),
            }
            message
        };
        let (mut offer, now) = offer(60);
        let mut b_trusts = false;
        let mut run = || -> Result<Bundle, PairingError> {
            let (accepting, one) = accept(code(1));
            let (greeted, two) = offer.greet(&change(1, one), now)?;
            let (shown, three) = accepting.show(&change(2, two))?;
            let (offered, four) = greeted.prove(&mut offer, &change(3, three), now)?;
            let compared = shown.compare(&change(4, four), now)?;
            let (decided, five) = compared.decide(true)?;
            let agreed = offered.agreed(&change(5, five))?;
            b_trusts = true;
            decided.concluded(&change(6, agreed.conclude(true)?))
        };
        prop_assert!(run().is_err());
        // Only the very last message can be lost with one side believing: that side was told yes by both.
        prop_assert!(!b_trusts || which == 6);
    }

    #[test]
    fn reading_is_total(message in prop::collection::vec(any::<u8>(), 0..200)) {
        let (mut offer, now) = offer(60);
        prop_assert!(offer.greet(&message, now).is_err());
        let (accepting, one) = accept(code(1));
        let (greeted, _) = offer.greet(&one, now).unwrap();
        prop_assert!(greeted.prove(&mut offer, &message, now).is_err());
        prop_assert!(accepting.show(&message).is_err());
    }
}
