//! JSON Schemas of the types that cross sockets as texts.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::session::{OpenFields, SessionOpen};
use crate::{Digest, Endpoint, Label, Origin, PeerIdentity, SessionId, Timestamp, Token};

macro_rules! texts {
    ($($name:ident: $about:literal, $pattern:literal;)*) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "description": $about, "pattern": $pattern})
            }
        }
    )*};
}

texts! {
    Digest: "A BLAKE3 digest.", "^[0-9a-fA-F]{64}$";
    Endpoint: "Where something listens or is reached.", "^(unix:/|tcp:.+:[0-9]+$)";
    Label: "What connections are for.", "^(disk|control)(-[A-Za-z0-9]+)?$";
    Origin: "Where a hypervisor may connect from: an address, or uid:N.", ".";
    PeerIdentity: "A name as a certificate carries it.", "^novacron://[^/]+/(authority|gateway|caller)/[^/]+$";
    SessionId: "A session's name.", "^[0-9a-fA-F]{16}$";
    Timestamp: "An instant, RFC 3339 in UTC.", "Z$";
    Token: "A session's secret.", "^[0-9a-fA-F]{64}$";
}

impl JsonSchema for SessionOpen {
    fn schema_name() -> Cow<'static, str> {
        "SessionOpen".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        OpenFields::json_schema(generator)
    }
}
