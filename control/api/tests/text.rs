//! Endpoints, identifiers, times and errors as text.

use novacron_control_api::{Digest, Endpoint, EndpointError, ErrorCode, SessionId, Timestamp, Token};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn endpoints_are_written_as_they_were_read() {
    for text in ["unix:/run/a.sock", "tcp:127.0.0.1:7400", "tcp:[::1]:7400", "tcp:gw-1.example.net:0"] {
        assert_eq!(endpoint(text).to_string(), text);
        let json = serde_json::to_string(&endpoint(text)).expect("JSON");
        assert_eq!(serde_json::from_str::<Endpoint>(&json).expect("back"), endpoint(text));
    }
}

#[test]
fn wrong_endpoints_say_why() {
    use EndpointError as E;
    let wrong = |text: &str| text.parse::<Endpoint>().expect_err(text);
    assert!(matches!(wrong(""), E::Scheme(_)));
    assert!(matches!(wrong("rdma:h:1"), E::Scheme(_)));
    assert!(matches!(wrong("unix:relative"), E::PathRelative(_)));
    assert!(matches!(wrong("unix:"), E::PathRelative(_)));
    assert_eq!(wrong(&format!("unix:/{}", "x".repeat(107))), E::PathLong { bytes: 108 });
    assert_eq!(wrong("unix:/a\0b"), E::PathNul);
    assert!(matches!(wrong("tcp:host"), E::PortMissing(_)));
    for port in ["tcp:h:", "tcp:h:65536", "tcp:h:-1", "tcp:h:+1", "tcp:h: 1", "tcp:h:http"] {
        assert!(matches!(wrong(port), E::Port(_)), "{port}");
    }
    for brackets in ["tcp:::1:7400", "tcp:[::1:7400", "tcp:[h]:1", "tcp:[127.0.0.1]:1"] {
        assert!(matches!(wrong(brackets), E::Brackets(_)), "{brackets}");
    }
    for host in ["tcp::1", "tcp:a b:1", "tcp:a,b:1", "tcp:a/b:1"] {
        assert!(matches!(wrong(host), E::Host(_)), "{host}");
    }
    assert!(format!("tcp:{}:1", "a".repeat(254)).parse::<Endpoint>().is_err());
}

#[test]
fn loopback_is_only_what_cannot_leave_the_host() {
    for inside in ["unix:/a", "tcp:127.0.0.1:1", "tcp:127.9.9.9:1", "tcp:[::1]:1", "tcp:localhost:1"] {
        assert!(endpoint(inside).is_loopback(), "{inside}");
    }
    assert!(endpoint("tcp:[::ffff:127.0.0.1]:1").is_loopback());
    for outside in ["tcp:0.0.0.0:1", "tcp:[::]:1", "tcp:10.0.0.1:1", "tcp:localhost.example:1", "tcp:127.1:1"]
    {
        assert!(!endpoint(outside).is_loopback(), "{outside}");
    }
    assert_eq!(endpoint("tcp:localhost:5").socket_address(), Some(([127, 0, 0, 1], 5).into()));
}

#[test]
fn identifiers_are_exact_and_tokens_never_show() {
    assert_eq!(SessionId(0xc0ffee).to_string(), "0000000000c0ffee");
    assert_eq!("0000000000C0FFEE".parse(), Ok(SessionId(0xc0ffee)));
    for wrong in ["", "c0ffee", "0000000000c0ffeg", "0000000000c0ffee0", "+000000000c0ffee", "é000000000c0ff"]
    {
        assert!(wrong.parse::<SessionId>().is_err(), "{wrong}");
    }
    let token = Token::from_bytes([0xab; 32]);
    assert!(!format!("{token:?} {token}").contains("ab"));
    assert_eq!(serde_json::to_string(&token).expect("JSON"), format!("\"{}\"", "ab".repeat(32)));
    assert_eq!("ab".repeat(32).parse::<Token>().expect("a token"), token);
    assert_ne!(Token::from_bytes([0xaa; 32]), token);
    assert_eq!(Digest([1; 32]).to_string(), "01".repeat(32));
}

#[test]
fn times_are_rfc_3339_and_a_broken_clock_is_survived() {
    let time = Timestamp::from(UNIX_EPOCH + Duration::from_millis(1_795_219_200_123));
    assert_eq!(time.to_string(), "2026-11-21T00:00:00.123Z");
    assert_eq!(time.to_string().parse(), Ok(time));
    assert_eq!(time.unix_ms(), 1_795_219_200_123);
    let before = Timestamp::from(UNIX_EPOCH - Duration::from_secs(5));
    assert_eq!(before.to_string(), "1970-01-01T00:00:00.000Z");
    let after = Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40));
    assert_eq!(after.to_string(), "9999-12-31T23:59:59.000Z");
    assert!("yesterday".parse::<Timestamp>().is_err());
}

#[test]
fn every_error_number_is_its_own() {
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_number(code.number()), Some(code));
        let same = ErrorCode::ALL.into_iter().filter(|other| other.name() == code.name()).count();
        assert_eq!(same, 1, "{code:?}");
    }
    assert_eq!(ErrorCode::from_number(-1), None);
}
