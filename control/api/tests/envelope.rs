//! Any line becomes a call or the right error.

use novacron_control_api::{
    Call, Codec, Id, Incoming, LineBuffer, LineTooLong, Notification, Request, Response, SessionSide, limits,
    parse_incoming, parse_request,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn code(line: &str) -> i64 {
    parse_request(line.as_bytes()).expect_err(line).error.code
}

fn open(extra: &Value) -> Value {
    let mut params = json!({"session": "00c0ffee00c0ffee", "token": TOKEN, "role": "source",
        "peer": "tcp:127.0.0.1:7400", "listen": "unix:/tmp/s"});
    for (name, value) in extra.as_object().expect("an object") {
        params[name] = value.clone();
        if value.is_null() {
            params.as_object_mut().expect("an object").remove(name);
        }
    }
    json!({"jsonrpc": "2.0", "id": 1, "method": "session.open", "params": params})
}

#[test]
fn faults_have_the_codes_of_the_specification() {
    assert_eq!(code("{"), -32700);
    assert_eq!(code(""), -32700);
    assert_eq!(code("\u{1}"), -32700);
    assert_eq!(code(&"[".repeat(100_000)), -32700);
    assert_eq!(code("[]"), -32600);
    assert_eq!(code("1"), -32600);
    assert_eq!(code(r#"{"id":1,"method":"gateway.info"}"#), -32600);
    assert_eq!(code(r#"{"jsonrpc":"1.0","id":1,"method":"gateway.info"}"#), -32600);
    assert_eq!(code(r#"{"jsonrpc":2.0,"id":1,"method":"gateway.info"}"#), -32600);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1.5,"method":"gateway.info"}"#), -32600);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":{},"method":"gateway.info"}"#), -32600);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":7}"#), -32600);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"gateway.info","more":1}"#), -32600);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"gateway.explode"}"#), -32601);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"gateway.info","params":[1]}"#), -32602);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"gateway.info","params":{"x":1}}"#), -32602);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"session.get","params":{"session":1}}"#), -32602);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"session.get","params":{"session":"12"}}"#), -32602);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"session.get","params":{}}"#), -32602);
}

#[test]
fn a_line_past_the_bound_is_refused_without_being_read() {
    let line = vec![b' '; limits::LINE_BYTES_MAX + 1];
    assert_eq!(parse_request(&line).expect_err("too long").error.code, -32700);
    let mut lines = LineBuffer::new();
    lines.feed(&line);
    assert_eq!(lines.next_line(), Err(LineTooLong(limits::LINE_BYTES_MAX)));
}

#[test]
fn faults_answer_under_the_requests_id_and_notifications_get_none() {
    let fault = parse_request(br#"{"jsonrpc":"2.0","id":"a","method":"x"}"#).expect_err("no method x");
    assert_eq!(fault.id, Id::Text("a".into()));
    let line = fault.into_response().expect("an answer").to_line();
    let value: Value = serde_json::from_slice(&line).expect("JSON");
    assert_eq!(value["error"]["data"]["code"], "method_not_found");
    assert_eq!(value["error"]["data"]["lost"], "nothing");
    let fault = parse_request(br#"{"jsonrpc":"2.0","method":"x"}"#).expect_err("no method x");
    assert!(fault.into_response().is_none());
}

#[test]
fn open_has_defaults_and_refuses_what_does_not_belong() {
    let request = parse_request(open(&json!({})).to_string().as_bytes()).expect("valid");
    let Call::SessionOpen(params) = &request.call else { panic!("{request:?}") };
    assert_eq!((params.options.lanes, params.options.streams, params.options.level), (1, 1, 3));
    assert_eq!(params.options.outage_ms, 60_000);
    assert!(params.options.digest && params.options.destination_may_start);
    assert_eq!(params.options.codec, Codec::Adaptive);
    assert!(matches!(params.side, SessionSide::Source { .. }));
    assert_eq!(parse_request(&trimmed(request.to_line())).expect("its own line"), request);

    let destination =
        open(&json!({"role": "destination", "peer": null, "listen": null, "connect": "tcp:[::1]:4444"}));
    assert!(parse_request(destination.to_string().as_bytes()).is_ok());
    for fitting in [
        json!({"level": 0}),
        json!({"level": 22}),
        json!({"connections_max": 257}),
        json!({"lanes": 64, "streams": 512}),
    ] {
        let line = open(&json!({"options": fitting})).to_string();
        assert!(parse_request(line.as_bytes()).is_ok(), "{fitting}");
    }
    let several = open(&json!({"tenant": "blue", "from": ["192.0.2.1", "uid:7"], "labelled": [
        {"label": "disk-vda", "endpoint": "tcp:127.0.0.1:0"}, {"label": "disk-vdb", "endpoint": "tcp:127.0.0.1:0"}]}));
    let request = parse_request(several.to_string().as_bytes()).expect("valid");
    assert_eq!(parse_request(&trimmed(request.to_line())).expect("its own line"), request);
    let listener = open(
        &json!({"role": "destination", "peer": null, "listen": null, "connect": "unix:/x", "from": ["uid:1"]}),
    );
    assert_eq!(code(&listener.to_string()), -32602, "nobody connects to a destination's gateway");
    for wrong in [
        json!({"connect": "unix:/x"}),
        json!({"peer": null}),
        json!({"peer": "unix:/x"}),
        json!({"peer": "tcp:h:0"}),
        json!({"role": "witness"}),
        json!({"token": "12"}),
        json!({"options": {"lanes": 0}}),
        json!({"options": {"lanes": 65}}),
        json!({"options": {"lanes": -1}}),
        json!({"options": {"streams": 1e30}}),
        json!({"options": {"level": 23}}),
        json!({"options": {"connections_max": 0}}),
        json!({"options": {"connections_max": 258}}),
        json!({"options": {"codec": "rot13"}}),
        json!({"options": {"outage_ms": 1u64 << 60}}),
        json!({"options": {"speed": 1}}),
        json!({"label": "x".repeat(limits::TEXT_BYTES_MAX + 1)}),
        json!({"unknown": 1}),
        json!({"tenant": "two words"}),
        json!({"tenant": "x".repeat(limits::TENANT_BYTES_MAX + 1)}),
        json!({"from": ["everybody"]}),
        json!({"from": vec!["uid:1"; limits::ORIGINS_MAX + 1]}),
        json!({"labelled": [{"label": "migration", "endpoint": "unix:/d"}]}),
        json!({"labelled": [{"label": "disk", "endpoint": "unix:/d"}, {"label": "disk", "endpoint": "unix:/e"}]}),
        json!({"labelled": [{"label": "disk", "endpoint": "unix:/tmp/s"}]}),
        json!({"labelled": [{"label": "disk", "endpoint": "unix:/d", "more": 1}]}),
        json!({"options": {"idle_timeout_ms": 1u64 << 60}}),
    ] {
        assert_eq!(code(&open(&wrong).to_string()), -32602, "{wrong}");
    }
}

#[test]
fn a_wrong_token_is_not_echoed() {
    for wrong in [json!(TOKEN[1..]), json!([TOKEN]), json!({"t": TOKEN})] {
        let line = open(&json!({"token": wrong})).to_string();
        let error = parse_request(line.as_bytes()).expect_err("wrong token").error;
        assert!(!format!("{error:?}").contains(&TOKEN[1..20]), "{error:?}");
    }
    let request = parse_request(open(&json!({})).to_string().as_bytes()).expect("valid");
    assert!(!format!("{request:?}").contains(&TOKEN[1..20]));
}

#[test]
fn responses_and_notifications_are_read_back() {
    let line = Response::result(Id::Number(3), &json!({"a": 1})).to_line();
    let read = parse_incoming(&trimmed(line)).expect("a response");
    assert_eq!(read, Incoming::Response { id: Id::Number(3), result: Ok(json!({"a": 1})) });
    let params = json!({"session": "x"});
    let line = Notification::new("session.progress", &params).to_line();
    let read = parse_incoming(&trimmed(line)).expect("a notification");
    assert_eq!(read, Incoming::Notification { method: "session.progress".into(), params });
    for wrong in ["", "{}", "[]", r#"{"jsonrpc":"2.0","id":1}"#, r#"{"jsonrpc":"2.0","id":1,"error":3}"#] {
        assert!(parse_incoming(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn lines_come_back_however_they_are_cut() {
    let text = b"one\r\ntwo\n\nfour\npart";
    for cut in 0..text.len() {
        let mut lines = LineBuffer::new();
        let mut out = Vec::new();
        for part in [&text[..cut], &text[cut..]] {
            lines.feed(part);
            while let Some(line) = lines.next_line().expect("short") {
                out.push(line);
            }
        }
        assert_eq!(out, [&b"one"[..], b"two", b"", b"four"], "cut at {cut}");
    }
}

fn trimmed(mut line: Vec<u8>) -> Vec<u8> {
    assert_eq!(line.pop(), Some(b'\n'));
    assert!(!line.contains(&b'\n'), "one object a line");
    line
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_request(&bytes);
        let _ = parse_incoming(&bytes);
    }

    #[test]
    fn no_change_of_one_byte_makes_it_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut line = trimmed(Request::new(1, parse_request(open(&json!({})).to_string().as_bytes())
            .expect("valid").call).to_line());
        let at = at.index(line.len());
        line[at] = byte;
        if let Ok(request) = parse_request(&line) {
            prop_assert_eq!(parse_request(&trimmed(request.to_line())).expect("its own line"), request);
        }
    }
}
