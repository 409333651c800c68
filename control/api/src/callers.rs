//! Who may command a gateway in whose name: the file `callers.toml`.

use serde::{Deserialize, Serialize};

use crate::limits::{CALLERS_MAX, TENANTS_MAX};
use crate::peers::is_tenant;

/// What a user of the gateway's host may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallerRule {
    /// The user, as the kernel says who is at the other end of the control socket.
    pub uid: u32,
    /// Whose sessions this user opens, sees and ends. A single one is also the tenant of sessions that name none.
    pub tenants: Vec<String>,
}

/// The file `callers.toml`: who is not named may say nothing. The gateway's own user and root may do everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callers {
    /// The rules, one a user.
    #[serde(default, rename = "caller")]
    pub callers: Vec<CallerRule>,
}

impl Callers {
    /// Reads the text of the file.
    ///
    /// # Errors
    /// What is wrong and where, for people. Nothing of a file that has a mistake is used.
    pub fn parse(text: &str) -> Result<Self, String> {
        let callers: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if callers.callers.len() > CALLERS_MAX {
            let named = callers.callers.len();
            return Err(format!("{named} callers are named; {CALLERS_MAX} are read at most"));
        }
        for (at, rule) in callers.callers.iter().enumerate() {
            let uid = rule.uid;
            if callers.callers[..at].iter().any(|other| other.uid == uid) {
                return Err(format!("uid {uid} is named twice: name all of its tenants at once"));
            }
            if rule.tenants.is_empty() || rule.tenants.len() > TENANTS_MAX {
                return Err(format!("uid {uid}: name 1 to {TENANTS_MAX} tenants"));
            }
            if rule.tenants.iter().any(|tenant| !is_tenant(tenant)) {
                return Err(format!("uid {uid}: a tenant is letters, digits, '-', '_' and '.'; '*' is none"));
            }
        }
        Ok(callers)
    }

    /// The tenants in whose name a user may speak; `None`: in nobody's.
    pub fn tenants_of(&self, uid: u32) -> Option<&[String]> {
        self.callers.iter().find(|rule| rule.uid == uid).map(|rule| rule.tenants.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_speaks_for_whom_the_file_says() {
        let text = "[[caller]]\nuid = 1001\ntenants = [\"red\"]\n\n[[caller]]\nuid = 1002\ntenants = [\"red\", \"blue\"]\n";
        let callers = Callers::parse(text).unwrap();
        assert_eq!(callers.tenants_of(1001), Some(&["red".to_owned()][..]));
        assert_eq!(callers.tenants_of(1002).map(<[String]>::len), Some(2));
        assert_eq!((callers.tenants_of(0), Callers::parse("").unwrap().tenants_of(1001)), (None, None));
    }

    #[test]
    fn a_mistake_is_told_and_nothing_is_used() {
        for (text, said) in [
            ("[[caller]]\nuid = 1\ntenants = [\"*\"]\n", "'*' is none"),
            ("[[caller]]\nuid = 1\ntenants = []\n", "name 1 to"),
            ("[[caller]]\nuid = 1\ntenants = [\"a\"]\n[[caller]]\nuid = 1\ntenants = [\"b\"]\n", "twice"),
            ("[[caller]]\nuid = -1\ntenants = [\"a\"]\n", "uid"),
            ("[[caller]]\nname = \"me\"\ntenants = [\"a\"]\n", "name"),
        ] {
            let error = Callers::parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
