//! Who calls, and what the configuration lets them do.

use std::fmt;

use novacron_control_api::PeerIdentity;
use novacron_control_api::configuration::{CallerName, Security};
use novacron_control_api::control::Role;

use crate::server::tokens::Holder;

/// Who a connection belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// A user of this host.
    Local {
        /// The user.
        uid: u32,
        /// Its own group.
        gid: u32,
    },
    /// The holder of a certificate.
    Certificate(PeerIdentity),
    /// Whoever showed a token.
    Token(Holder),
    /// Somebody remote who has shown nothing yet.
    Unknown,
}

impl Who {
    /// The way that it came.
    pub(crate) fn origin(&self) -> &'static str {
        if matches!(self, Self::Local { .. }) { "unix" } else { "tls" }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, .. } => write!(f, "uid:{uid}"),
            Self::Certificate(identity) => write!(f, "{identity}"),
            Self::Token(holder) => write!(f, "token:{}", holder.name),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// The highest role that any list gives the caller.
pub(crate) fn role(security: &Security, own_uid: u32, who: &Who) -> Option<Role> {
    // Whoever runs the process could end it as well.
    let owns = matches!(who, Who::Local { uid, .. } if *uid == own_uid);
    let local = matches!(who, Who::Local { .. });
    if owns || (local && !security.enable_auth) {
        return Some(Role::Admin);
    }
    let is = |name: &CallerName| match (name, who) {
        (CallerName::Uid(named), Who::Local { uid, .. }) => named == uid,
        (CallerName::Gid(named), Who::Local { gid, .. }) => named == gid,
        (CallerName::Certificate(named), Who::Certificate(identity)) => named == identity,
        (CallerName::Token(named), Who::Token(holder)) => *named == holder.name,
        _ => false,
    };
    let lists = [
        (&security.admins, Role::Admin),
        (&security.operators, Role::Operator),
        (&security.viewers, Role::Viewer),
    ];
    lists.into_iter().find(|(names, _)| names.iter().any(is)).map(|(_, role)| role)
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_control_api::configuration::{Entry, Layers, Origin, Raw};

    fn security(pairs: &[(&str, &str)]) -> Security {
        let mut layers = Layers::new();
        layers.add(pairs.iter().map(|(path, text)| Entry {
            path: format!("security.{path}"),
            raw: Raw::Given((*text).into()),
            origin: Origin::Default,
        }));
        layers.resolve().unwrap().configuration.security
    }

    fn local(uid: u32, gid: u32) -> Who {
        Who::Local { uid, gid }
    }

    #[test]
    fn the_highest_list_counts_and_nobody_else_gets_in() {
        let of = security(&[
            ("admins", "uid:1"),
            ("operators", "gid:20,novacron://a/caller/fleet"),
            ("viewers", "uid:1,uid:3,token:scraper"),
        ]);
        let fleet = |text: &str| Who::Certificate(text.parse().unwrap());
        for (who, expected) in [
            (local(1, 20), Some(Role::Admin)),
            (local(2, 20), Some(Role::Operator)),
            (local(3, 3), Some(Role::Viewer)),
            (local(4, 1), None),
            (local(1000, 4), Some(Role::Admin)),
            (fleet("novacron://a/caller/fleet"), Some(Role::Operator)),
            (fleet("novacron://b/caller/fleet"), None),
            (Who::Token(Holder::named("scraper")), Some(Role::Viewer)),
            (Who::Token(Holder::named("1")), None),
            (Who::Unknown, None),
        ] {
            assert_eq!(role(&of, 1000, &who), expected, "{who}");
        }
    }

    #[test]
    fn without_roles_who_is_local_may_everything_and_nobody_remote_anything() {
        let of = security(&[("enable_auth", "false"), ("admins", "")]);
        assert_eq!(role(&of, 1000, &local(4, 4)), Some(Role::Admin));
        assert_eq!(role(&of, 1000, &Who::Unknown), None);
        assert_eq!(role(&of, 1000, &Who::Token(Holder::named("a"))), None);
    }
}
