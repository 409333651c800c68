//! What the configuration gives new sessions: switches, rollout, and what their callers left open. Pure.
//!
//! A switch that is off wins over everything, its caller included: that is what a kill switch is for. Where it is on,
//! a session gets the feature when its number falls within the rollout; what its caller asked for by name is left.

use novacron_control_api::SessionId;
use novacron_control_api::configuration::{Algorithm, Configuration};
use serde_json::{Map, Value, json};

/// A feature with a switch.
pub(crate) struct Switch {
    pub(crate) name: &'static str,
    pub(crate) built: bool,
    pub(crate) enabled: bool,
}

/// Every feature.
pub(crate) fn switches(configuration: &Configuration) -> [Switch; 6] {
    let of = &configuration.dwcp;
    let switch = |name, built, enabled| Switch { name, built, enabled };
    [
        switch("transport", true, of.enable_v3_transport),
        switch("compression", true, of.enable_v3_compression),
        switch("prediction", false, of.enable_v3_prediction),
        switch("state_sync", false, of.enable_v3_state_sync),
        switch("consensus", false, of.enable_v3_consensus),
        switch("placement", false, of.enable_v3_placement),
    ]
}

/// Where a session stands in the rollout, 0 to 99: the same at both gateways, because it comes from its name.
fn place(session: SessionId) -> u64 {
    // Callers may count names up instead of drawing them: mixed, their neighbours are spread (SplitMix64's finaliser).
    let mut mixed = session.0;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % 100
}

/// Which features a new session gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) transport: bool,
    pub(crate) compression: bool,
}

/// Fills in the `options` of a `session.open` whose parameters are `params`, before they are read: afterwards nobody
/// could tell what its caller asked for from what it left open.
pub(crate) fn apply(
    configuration: &Configuration,
    session: SessionId,
    params: &mut Map<String, Value>,
) -> Given {
    let within = place(session) < configuration.dwcp.v3_rollout_percentage.get();
    let given = Given {
        transport: configuration.dwcp.enable_v3_transport && within,
        compression: configuration.dwcp.enable_v3_compression && within,
    };
    let options = params.entry("options").or_insert_with(|| json!({}));
    // Whatever else stands there is refused when it is read.
    let Some(options) = options.as_object_mut() else { return given };
    let (transport, compression) = (&configuration.transport, &configuration.compression);
    let mut open = |name: &str, value: Value| {
        options.entry(name).or_insert(value);
    };
    open("outage_ms", json!(transport.stream_timeout.ms()));
    if given.transport {
        open("streams", json!(transport.min_streams.get()));
    }
    if given.compression {
        let algorithm = match compression.algorithm {
            Algorithm::Adaptive => "adaptive",
            Algorithm::Zstd => "zstd",
            Algorithm::Lz4 => "lz4",
            Algorithm::None => "none",
        };
        open("codec", json!(algorithm));
        open("level", json!(compression.level.get()));
        open("enable_delta", json!(compression.enable_delta));
    }
    if !given.transport {
        options.insert("streams".into(), json!(1));
    }
    if !given.compression {
        options.insert("codec".into(), json!("none"));
        options.insert("enable_delta".into(), json!(false));
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_control_api::configuration::{Entry, Layers, Origin, Raw};
    use proptest::prelude::*;

    fn configuration(pairs: &[(&str, &str)]) -> Configuration {
        let mut layers = Layers::new();
        layers.add(pairs.iter().map(|(path, text)| Entry {
            path: (*path).into(),
            raw: Raw::Given((*text).into()),
            origin: Origin::Default,
        }));
        layers.resolve().unwrap().configuration
    }

    fn options(configuration: &Configuration, session: u64, options: Value) -> (Given, Value) {
        let mut params = json!({"options": options}).as_object().cloned().unwrap();
        let given = apply(configuration, SessionId(session), &mut params);
        (given, params["options"].clone())
    }

    #[test]
    fn what_a_caller_leaves_open_is_filled_in_and_what_it_names_is_left() {
        let all = configuration(&[
            ("dwcp.transport.min_streams", "9"),
            ("dwcp.compression.algorithm", "lz4"),
            ("dwcp.compression.enable_delta", "false"),
        ]);
        let (_, filled) = options(&all, 1, json!({}));
        assert_eq!(
            filled,
            json!({"outage_ms": 60000, "streams": 9, "codec": "lz4", "level": 3, "enable_delta": false})
        );
        let named = json!({"streams": 2, "codec": "zstd", "level": 7, "outage_ms": 5, "enable_delta": true});
        assert_eq!(options(&all, 1, named.clone()).1, named);
    }

    #[test]
    fn a_kill_switch_wins_over_the_caller() {
        let off =
            configuration(&[("dwcp.enable_v3_transport", "false"), ("dwcp.enable_v3_compression", "false")]);
        let (given, options) = options(&off, 1, json!({"streams": 8, "codec": "zstd", "enable_delta": true}));
        assert_eq!(given, Given { transport: false, compression: false });
        assert_eq!(options["enable_delta"], json!(false));
        assert_eq!((&options["streams"], &options["codec"]), (&json!(1), &json!("none")));
    }

    #[test]
    fn the_rollout_is_a_share_of_sessions_that_are_numbered_in_a_row() {
        for percentage in [0, 1, 25, 50, 99, 100] {
            let some = configuration(&[("dwcp.v3_rollout_percentage", &percentage.to_string())]);
            let count = (0..10_000).filter(|n| options(&some, *n, json!({})).0.compression).count();
            let expected = percentage * 100;
            assert!(count.abs_diff(expected) <= 200, "{percentage} %: {count} of 10,000");
            assert!(percentage % 100 != 0 || count == expected);
        }
    }

    proptest! {
        /// Raising the share never takes a feature from a session that had it.
        #[test]
        fn the_rollout_only_adds(session: u64, percentage in 0u64..100) {
            let at = |percentage: u64| {
                let some = configuration(&[("dwcp.v3_rollout_percentage", &percentage.to_string())]);
                options(&some, session, json!({})).0
            };
            let (less, more) = (at(percentage), at(percentage + 1));
            prop_assert!(more.transport || !less.transport);
        }

        /// Whatever stands in the place of options, nothing panics.
        #[test]
        fn options_may_be_anything(text in "\\PC{0,20}") {
            let all = configuration(&[]);
            let mut params = Map::new();
            params.insert("options".into(), json!(text));
            apply(&all, SessionId(1), &mut params);
        }
    }
}
