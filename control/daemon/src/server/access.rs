//! Who calls, and what the configuration lets them do.

use std::fmt;
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use novacron_control_api::PeerIdentity;
use novacron_control_api::configuration::{CallerName, Security};
use novacron_control_api::control::Role;

use crate::limits::{TOKEN_BYTES_MIN, TOKEN_FILE_BYTES_MAX};

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
    /// Whoever showed the token of this name.
    Token(String),
    /// Somebody remote who has shown nothing yet.
    Unknown,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, .. } => write!(f, "uid:{uid}"),
            Self::Certificate(identity) => write!(f, "{identity}"),
            Self::Token(name) => write!(f, "token:{name}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// The SHA-256 of a text, in hex: what the file of tokens holds.
fn sha256_hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
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
        (CallerName::Token(named), Who::Token(name)) => named == name,
        _ => false,
    };
    let lists = [
        (&security.admins, Role::Admin),
        (&security.operators, Role::Operator),
        (&security.viewers, Role::Viewer),
    ];
    lists.into_iter().find(|(names, _)| names.iter().any(is)).map(|(_, role)| role)
}

/// The name of a token in a file of lines `NAME SHA256`; `None`: nobody's.
///
/// # Errors
/// When the file cannot be read, or others may write it.
pub(crate) fn token_name(file: &Path, token: &str) -> Result<Option<String>, String> {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    let told = |why: String| format!("{} cannot be used: {why}", file.display());
    let opened = std::fs::File::open(file).map_err(|error| told(error.to_string()))?;
    let metadata = opened.metadata().map_err(|error| told(error.to_string()))?;
    if metadata.mode() & 0o022 != 0 {
        return Err(told("others may write it: set its mode to 0640 or less".to_owned()));
    }
    let mut text = String::new();
    opened.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| told(error.to_string()))?;
    Ok(find_token(&text, token))
}

fn find_token(text: &str, token: &str) -> Option<String> {
    if token.len() < TOKEN_BYTES_MIN {
        return None;
    }
    let shown = sha256_hex(token.as_bytes());
    // Every line is compared, so that the time tells nothing of where a token stands.
    let mut found = None;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some((name, digest)) = line.split_once(char::is_whitespace)
            && verify_slices_are_equal(digest.trim().as_bytes(), shown.as_bytes()).is_ok()
        {
            found = Some(name.to_owned());
        }
    }
    found
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
            (Who::Token("scraper".into()), Some(Role::Viewer)),
            (Who::Token("1".into()), None),
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
        assert_eq!(role(&of, 1000, &Who::Token("a".into())), None);
    }

    #[test]
    fn tokens_are_found_by_their_digest() {
        let (token, other) = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
        let text =
            format!("# callers\nfleet {}\nscraper {}\n", sha256_hex(token.as_bytes()), sha256_hex(b"short"));
        assert_eq!(find_token(&text, token).as_deref(), Some("fleet"));
        assert_eq!(find_token(&text, other), None);
        assert_eq!(find_token(&text, "short"), None, "too short to be a secret");
        assert_eq!(find_token(&text, &sha256_hex(token.as_bytes())), None, "the digest is no token");
    }
}
