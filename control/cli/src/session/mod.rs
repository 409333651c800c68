//! `novactl session`: sessions of hypervisors that somebody else drives.

mod args;
mod lines;
mod open;
mod token;

pub(crate) use args::SessionCommand;
pub(crate) use token::write_new_caller as write_new_token;

use args::CloseArgs;
use novacron_control_api::{Call, CancelParams, SessionRecord, SessionRef, SessionState};

use crate::report::{EXIT_DONE, EXIT_FAILED, EXIT_REFUSED};
use crate::rpc::{self, GatewayError};
use crate::sessions;

/// What a command came to: its exit code, and what it says.
pub(crate) struct Said {
    pub(crate) exit: u8,
    pub(crate) text: String,
}

impl Said {
    fn done(text: String) -> Self {
        Self { exit: EXIT_DONE, text }
    }

    fn refused(text: impl Into<String>) -> Self {
        Self { exit: EXIT_REFUSED, text: text.into() + "\n" }
    }
}

impl From<Result<String, GatewayError>> for Said {
    fn from(result: Result<String, GatewayError>) -> Self {
        match result {
            Ok(text) => Self::done(text),
            Err(error) => Self { exit: EXIT_FAILED, text: format!("{error}\n") },
        }
    }
}

/// Carries out one of them.
pub(crate) fn run(command: &SessionCommand) -> Said {
    match command {
        SessionCommand::Open(args) => open::run(args),
        SessionCommand::Token { file } => match token::write_new(file) {
            Ok(()) => Said::done(format!(
                "{} holds a session's secret: both sites need the same, and nobody else\n",
                file.display()
            )),
            Err(why) => Said::refused(why),
        },
        SessionCommand::List(args) => sessions::list(args).into(),
        SessionCommand::Show(args) => sessions::show(args).into(),
        SessionCommand::Close(args) => close(args),
    }
}

fn close(args: &CloseArgs) -> Said {
    let (gateway, session) = (&args.session.gateway.gateway, args.session.session);
    let record: Result<SessionRecord, _> = rpc::call(gateway, Call::SessionGet(SessionRef { session }));
    let call = match record {
        Err(error) => return Err(error).into(),
        Ok(record) if record.state.is_ended() => {
            return Said::done(shown(args, &record, "has ended already"));
        }
        Ok(record) if record.state == SessionState::Held && !args.release => {
            return Said::refused(format!(
                "session {} failed when the destination may have started the guest, so the source's sockets are held: \
                 closing them can let a second guest run. Make sure that none runs at the destination, then close it with \
                 --release",
                record.session
            ));
        }
        Ok(record) if record.state == SessionState::Held => Call::SessionRelease(SessionRef { session }),
        Ok(_) => Call::SessionCancel(CancelParams { session, reason: "novactl session close".into() }),
    };
    rpc::call(gateway, call).map(|record: SessionRecord| shown(args, &record, "is closed")).into()
}

fn shown(args: &CloseArgs, record: &SessionRecord, what: &str) -> String {
    if args.session.gateway.json {
        sessions::json(record)
    } else {
        format!("session {} {what}\n", record.session)
    }
}
