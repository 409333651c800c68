//! Announcing a session at one gateway or at both, without a hypervisor's monitor.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use novacron_control_api::limits::API_VERSION;
use novacron_control_api::{
    Call, CancelParams, Endpoint, ErrorCode, GatewayInfo, LabelledEndpoint, OpenResult, Origin, SessionId,
    SessionOpen, SessionOptions, SessionRecord, SessionSide, Token,
};

use super::args::{FromArg, Named, OpenArgs};
use super::lines::{Opened, Side};
use super::{Said, token};
use crate::args::bytes_per_s;
use crate::limits::{OPEN_AGAIN_PAUSE, RPC_ANSWER, RPC_OPEN_MARGIN};
use crate::report::{EXIT_FAILED, EXIT_REFUSED};
use crate::rpc::{self, Gateway, GatewayError};
use crate::{migrate, sessions, tell};

/// Why nothing was opened.
struct Refusal(String);

/// Opens it, and says what to do now.
pub(crate) fn run(args: &OpenArgs) -> Said {
    let plan = match Plan::new(args) {
        Ok(plan) => plan,
        Err(Refusal(why)) => return Said::refused(why),
    };
    match plan.open() {
        Ok(opened) => Said::done(if args.json { sessions::json(&opened) } else { opened.text() }),
        Err(error) => {
            let refused = matches!(&error, GatewayError::Answered { error, .. }
                if matches!(error.known_code(), Some(ErrorCode::Draining | ErrorCode::LimitReached | ErrorCode::SessionExists
                    | ErrorCode::InvalidParams | ErrorCode::BindFailed)));
            Said { exit: if refused { EXIT_REFUSED } else { EXIT_FAILED }, text: format!("{error}\n") }
        }
    }
}

/// One side as it is to be opened.
struct End<'a> {
    gateway: &'a Path,
    meets: Endpoint,
    labelled: Vec<LabelledEndpoint>,
}

/// What is to be opened where. Nothing was changed while it was made.
struct Plan<'a> {
    args: &'a OpenArgs,
    session: SessionId,
    token: Token,
    from: Vec<Origin>,
    source: Option<(End<'a>, Endpoint)>,
    destination: Option<End<'a>>,
}

impl<'a> Plan<'a> {
    fn new(args: &'a OpenArgs) -> Result<Self, Refusal> {
        let both = args.source_gateway.is_some() && args.destination_gateway.is_some();
        let source = match (&args.source_gateway, &args.peer) {
            (Some(gateway), Some(peer)) => {
                let meets = args.at.as_ref().or(args.listen.as_ref());
                let meets = meets.ok_or_else(|| {
                    Refusal("name where the source's hypervisor connects: --at or --listen".into())
                })?;
                let labelled = labelled(args, None)?;
                Some((End { gateway, meets: meets.clone(), labelled }, peer.clone()))
            }
            _ => None,
        };
        let destination = match &args.destination_gateway {
            Some(gateway) => {
                let meets = args.at.as_ref().or(args.connect.as_ref());
                let meets = meets.ok_or_else(|| {
                    Refusal("name where the destination's hypervisor listens: --at or --connect".into())
                })?;
                let labelled = labelled(args, Some((&args.connect_disk, &args.connect_control)))?;
                Some(End { gateway, meets: meets.clone(), labelled })
            }
            None => None,
        };
        let from = origins(args, source.as_ref().map(|(end, _)| end))?;
        let session = match (args.session, both) {
            (Some(session), _) => session,
            (None, true) => migrate::new_id().map_err(|trouble| Refusal(trouble.message().to_owned()))?,
            (None, false) => {
                return Err(Refusal(
                    "name the session with --session: the other site opens it under the same 16 hex digits"
                        .into(),
                ));
            }
        };
        let token = match (token::given(args.token_file.as_deref()).map_err(Refusal)?, both) {
            (Some(token), _) => token,
            (None, true) => token::new().map_err(Refusal)?,
            (None, false) => {
                return Err(Refusal(format!(
                    "the other site's gateway asks for the session's secret: give both the same one with --token-file or {} \
                     ('novactl session token FILE' makes one)",
                    token::VARIABLE
                )));
            }
        };
        Ok(Plan { args, session, token, from, source, destination })
    }

    fn options(&self) -> SessionOptions {
        SessionOptions {
            streams: self.args.streams,
            weight: self.args.weight,
            rate_limit_bytes_per_s: bytes_per_s(self.args.rate_limit),
            codec: self.args.codec.into(),
            outage_ms: self.args.outage * 1000,
            accept_timeout_ms: self.args.accept_timeout * 1000,
            idle_timeout_ms: self.args.idle_timeout * 1000,
            connections_max: self.args.connections,
            destination_may_start: !self.args.destination_stopped,
            ..SessionOptions::default()
        }
    }

    fn request(&self, side: SessionSide, end: &End<'_>) -> SessionOpen {
        SessionOpen {
            options: self.options(),
            label: self.args.label.clone(),
            labelled: end.labelled.clone(),
            from: if matches!(side, SessionSide::Source { .. }) { self.from.clone() } else { Vec::new() },
            tenant: self.args.tenant.clone(),
            ..SessionOpen::new(self.session, self.token.clone(), side)
        }
    }

    /// Announces it, the destination first. What was announced is taken back when the rest cannot be opened.
    fn open(&self) -> Result<Opened, GatewayError> {
        let mut destination = None;
        if let Some(end) = &self.destination {
            let side = SessionSide::Destination { connect: end.meets.clone() };
            call(end.gateway, &self.request(side, end))?;
            destination = Some(shown(end, end.meets.clone(), end.labelled.clone()));
        }
        let mut source = None;
        if let Some((end, peer)) = &self.source {
            match self.open_source(end, peer) {
                Ok(result) => {
                    let uri = result.listen.unwrap_or_else(|| end.meets.clone());
                    source = Some(shown(end, uri, result.labelled));
                }
                Err(error) => {
                    if let Some(end) = &self.destination {
                        let reason = "the source's side could not be opened".to_owned();
                        let cancel = Call::SessionCancel(CancelParams { session: self.session, reason });
                        // It would be given up by itself after the accept timeout.
                        let _ = rpc::call::<SessionRecord>(end.gateway, cancel);
                    }
                    return Err(error);
                }
            }
        }
        let (wait, stopped) = (self.args.accept_timeout, self.args.destination_stopped);
        Ok(Opened::new(self.session, source, destination, wait, stopped))
    }

    /// The other site's operator may be slower: a peer that does not know the session yet is asked again for a while.
    fn open_source(&self, end: &End<'_>, peer: &Endpoint) -> Result<OpenResult, GatewayError> {
        let side = SessionSide::Source { peer: peer.clone(), listen: end.meets.clone() };
        let request = self.request(side, end);
        let deadline = Instant::now() + Duration::from_secs(self.args.open_timeout);
        let mut told = false;
        loop {
            let error = match call(end.gateway, &request) {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            let not_yet = matches!(&error, GatewayError::Answered { error, .. }
                if matches!(error.known_code(), Some(ErrorCode::PeerRefused | ErrorCode::PeerUnreachable)));
            // Where this caller announced it itself, a refusal is final.
            if !not_yet || self.destination.is_some() || Instant::now() >= deadline {
                return Err(error);
            }
            if !std::mem::replace(&mut told, true) {
                tell(&format!("{error}; trying for {} s\n", self.args.open_timeout));
            }
            sleep(OPEN_AGAIN_PAUSE);
        }
    }
}

fn shown(end: &End<'_>, uri: Endpoint, labelled: Vec<LabelledEndpoint>) -> Side {
    Side { gateway: end.gateway.display().to_string(), uri, labelled }
}

fn call(gateway: &Path, request: &SessionOpen) -> Result<OpenResult, GatewayError> {
    let mut connected = Gateway::connect(gateway)?;
    let info: GatewayInfo = connected.call(Call::GatewayInfo, RPC_ANSWER)?;
    if info.api_version < API_VERSION {
        return Err(GatewayError::Old {
            path: gateway.display().to_string(),
            speaks: info.api_version,
            needs: API_VERSION,
        });
    }
    let wait = Duration::from_millis(request.options.open_timeout_ms) + RPC_OPEN_MARGIN;
    connected.call(Call::SessionOpen(Box::new(request.clone())), wait)
}

/// The labelled endpoints of a side: those of the source, with the destination's own where it has some.
fn labelled(args: &OpenArgs, own: Option<(&[Named], &[Named])>) -> Result<Vec<LabelledEndpoint>, Refusal> {
    let (own_disks, own_controls) = own.unwrap_or_default();
    let mut found = Vec::new();
    for (kind, common, own) in
        [("disk", &args.disk[..], own_disks), ("control", &args.control[..], own_controls)]
    {
        for named in common {
            let here = own.iter().find(|other| other.name == named.name).unwrap_or(named);
            let label = here.label(kind).map_err(Refusal)?;
            found.push(LabelledEndpoint { label, endpoint: here.endpoint.clone() });
        }
        // The source's end may be the other operator's to name.
        for only in own.iter().filter(|own| !common.iter().any(|named| named.name == own.name)) {
            let label = only.label(kind).map_err(Refusal)?;
            if args.source_gateway.is_some() {
                return Err(Refusal(format!("--connect-{kind} names '{label}', and no --{kind} does")));
            }
            found.push(LabelledEndpoint { label, endpoint: only.endpoint.clone() });
        }
    }
    Ok(found)
}

/// Who may connect at the source. What listens beyond this machine has to say it.
fn origins(args: &OpenArgs, source: Option<&End<'_>>) -> Result<Vec<Origin>, Refusal> {
    let from: Vec<Origin> = args
        .from
        .iter()
        .filter_map(|from| match from {
            FromArg::Any => None,
            FromArg::Only(origin) => Some(*origin),
        })
        .collect();
    let any = args.from.contains(&FromArg::Any);
    if any && !from.is_empty() {
        return Err(Refusal("--from any lets everybody in: name origins, or any, not both".into()));
    }
    let Some(end) = source else { return Ok(from) };
    let endpoints = || std::iter::once(&end.meets).chain(end.labelled.iter().map(|named| &named.endpoint));
    let has = |address: bool| from.iter().any(|origin| matches!(origin, Origin::Address(_)) == address);
    if let Some(open) = endpoints().find(|endpoint| !endpoint.is_loopback())
        && !any
        && !has(true)
    {
        return Err(Refusal(format!(
            "{open} can be reached from other machines: name the source's host with --from ADDRESS, or --from any"
        )));
    }
    for (address, what) in [(true, "tcp"), (false, "unix")] {
        let of_kind = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Tcp { .. }) == address;
        if has(address) && !endpoints().any(of_kind) {
            return Err(Refusal(format!("--from names an origin for {what}, and nothing listens on {what}")));
        }
    }
    Ok(from)
}
