//! Who is at the other end of the control socket, and in whose name it may speak.

use novacron_control_api::{Call, Callers, ErrorCode, RpcError, SessionRecord};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// In whose name a caller speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// In everybody's: the gateway's own user, root, and whoever can open a socket that is its owner's alone.
    Owner,
    /// In the name of these tenants.
    Tenants(Vec<String>),
}

fn refused(message: String, next: &str) -> RpcError {
    RpcError::new(ErrorCode::InvalidRequest, message, "nothing", next)
}

impl Caller {
    /// Who is at the other end, as the kernel says.
    pub(super) fn of(stream: &UnixStream, callers: Option<&Callers>) -> Result<Caller, RpcError> {
        let Some(callers) = callers else { return Ok(Caller::Owner) };
        let uid = rustix::net::sockopt::socket_peercred(stream)
            .map_err(|error| refused(format!("the system does not say who you are: {error}"), "try again"))?
            .uid
            .as_raw();
        if uid == 0 || uid == rustix::process::geteuid().as_raw() {
            return Ok(Caller::Owner);
        }
        match callers.tenants_of(uid) {
            Some(tenants) => Ok(Caller::Tenants(tenants.to_vec())),
            None => Err(refused(
                format!("uid {uid} may not command this gateway"),
                "ask whoever runs it to name you in the file of --callers",
            )),
        }
    }

    /// Whether the caller may know of a session.
    pub(super) fn sees(&self, record: &SessionRecord) -> bool {
        match self {
            Caller::Owner => true,
            Caller::Tenants(tenants) => tenants.contains(&record.tenant),
        }
    }

    /// The call as the caller may make it: a session without a tenant becomes that of the caller's only one.
    pub(super) fn may(&self, mut call: Call) -> Result<Call, RpcError> {
        let Caller::Tenants(tenants) = self else { return Ok(call) };
        match &mut call {
            Call::SessionOpen(open) => {
                if let ("", [only]) = (open.tenant.as_str(), tenants.as_slice()) {
                    open.tenant.clone_from(only);
                }
                if !tenants.contains(&open.tenant) {
                    let message = match open.tenant.as_str() {
                        "" => "a session of yours needs a tenant".to_owned(),
                        other => format!("you may not open sessions of the tenant {other}"),
                    };
                    return Err(refused(message, &format!("name one of: {}", tenants.join(", "))));
                }
            }
            // What concerns every tenant's sessions is nobody's alone.
            Call::GatewayDrain(_) | Call::PathForce(_) => {
                let message = "only the gateway's own user may do what concerns all sessions".to_owned();
                return Err(refused(message, "cancel your own sessions, or ask whoever runs it"));
            }
            _ => {}
        }
        Ok(call)
    }
}

/// Reads `callers.toml`.
pub(crate) fn read(path: &Path) -> Result<Callers, String> {
    let told = |why: String| format!("--callers {} cannot be used: {why}", path.display());
    let text = crate::trust::text_of_owner(path).map_err(told)?;
    Callers::parse(&text).map_err(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_control_api::{DrainParams, SessionId, SessionOpen, SessionSide, Token};

    fn open(tenant: &str) -> Call {
        let side = SessionSide::Destination { connect: "unix:/run/vm".parse().unwrap() };
        let open = SessionOpen::new(SessionId(1), Token::from_bytes([1; 32]), side);
        Call::SessionOpen(Box::new(SessionOpen { tenant: tenant.into(), ..open }))
    }

    fn tenant(call: &Call) -> &str {
        let Call::SessionOpen(open) = call else { panic!("{call:?}") };
        &open.tenant
    }

    #[test]
    fn a_caller_opens_sessions_of_its_own_tenants() {
        let red = Caller::Tenants(vec!["red".into()]);
        assert_eq!(tenant(&red.may(open("")).unwrap()), "red");
        assert_eq!(tenant(&red.may(open("red")).unwrap()), "red");
        assert!(red.may(open("blue")).unwrap_err().message.contains("blue"));
        let both = Caller::Tenants(vec!["red".into(), "blue".into()]);
        assert_eq!(tenant(&both.may(open("blue")).unwrap()), "blue");
        assert!(both.may(open("")).unwrap_err().message.contains("needs a tenant"));
        assert_eq!(tenant(&Caller::Owner.may(open("")).unwrap()), "");
        assert!(red.may(Call::GatewayDrain(DrainParams::default())).is_err());
        assert!(Caller::Owner.may(Call::GatewayDrain(DrainParams::default())).is_ok());
    }

    #[test]
    fn a_caller_sees_sessions_of_its_own_tenants() {
        let of = |name: &str| {
            let Call::SessionOpen(open) = open(name) else { panic!("another call") };
            crate::record::asked(&open)
        };
        let red = Caller::Tenants(vec!["red".into()]);
        assert!(red.sees(&of("red")) && !red.sees(&of("blue")) && !red.sees(&of("")));
        assert!(Caller::Owner.sees(&of("blue")));
    }

    #[test]
    fn who_is_at_the_other_end_is_asked_of_the_kernel() {
        let (near, _far) = UnixStream::pair().unwrap();
        assert_eq!(Caller::of(&near, None).unwrap(), Caller::Owner);
        // This test's own user is the gateway's.
        assert_eq!(Caller::of(&near, Some(&Callers::default())).unwrap(), Caller::Owner);
    }
}
