//! `novactl pair`: the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use novacron_control_api::{Endpoint, PeerDirection};
use novacron_keys::Fingerprint;
use novacron_keys::limits::{PAIRING_LIFETIME, PAIRING_LIFETIME_MAX};

use crate::keys::args::EXIT_CODES;

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct PairArgs {
    #[command(subcommand)]
    pub(crate) command: PairCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PairCommand {
    /// Make a one-use code and wait for the other site to use it
    ///
    /// Tell the code to the other site's operator over a way that you trust (a call, an encrypted message). Both sides
    /// then show both sites' fingerprints and ask; when both say yes, each trusts the other's gateways.
    #[command(
        after_help = "Examples:\n  novactl pair offer --listen tcp:192.0.2.1:7401\n  novactl pair offer --listen tcp:192.0.2.1:7401 --directions from --tenants red,blue"
    )]
    Offer(OfferArgs),
    /// Use the other site's code
    ///
    /// The code is asked for, or read from --code-file: never an argument, which other users of the host could read.
    #[command(after_help = "Example:\n  novactl pair accept --connect tcp:192.0.2.1:7401")]
    Accept(AcceptArgs),
    /// Write what this site shows others, for sites without a direct way between them
    #[command(after_help = "Example:\n  novactl pair export --out site-a.pem")]
    Export(ExportArgs),
    /// Trust another site by its exported file, and by the fingerprint that its operator told you
    #[command(after_help = "Example:\n  novactl pair import site-b.pem --fingerprint 4A:0F:...")]
    Import(ImportArgs),
    /// Take newer revocation lists of authorities that are trusted here
    #[command(after_help = "Example:\n  novactl pair revocations revoked.pem")]
    Revocations(RevocationsArgs),
}

/// The gateway's folder.
#[derive(Debug, Args)]
pub(crate) struct IdentityFolder {
    /// The gateway's identity folder
    #[arg(long, value_name = "DIR", env = "NOVACRON_IDENTITY", default_value = "/etc/novacron/identity")]
    pub(crate) identity: PathBuf,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the other site's gateways may do here.
#[derive(Debug, Args)]
pub(crate) struct RuleArgs {
    /// Whose migrations they may carry; '*' for all
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "*")]
    pub(crate) tenants: Vec<String>,
    /// Which ways guests may go: from there, to there
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [DirectionArg::From, DirectionArg::To])]
    pub(crate) directions: Vec<DirectionArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DirectionArg {
    /// Guests come from there
    From,
    /// Guests go there
    To,
}

impl From<DirectionArg> for PeerDirection {
    fn from(direction: DirectionArg) -> Self {
        match direction {
            DirectionArg::From => Self::From,
            DirectionArg::To => Self::To,
        }
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|why| why.to_string())?;
    if time.is_zero() || time > PAIRING_LIFETIME_MAX {
        return Err(format!("at most {}", humantime::format_duration(PAIRING_LIFETIME_MAX)));
    }
    Ok(time)
}

pub(crate) fn tcp(text: &str) -> Result<Endpoint, String> {
    let endpoint: Endpoint = text.parse().map_err(|why| format!("{why}"))?;
    match endpoint {
        Endpoint::Unix(_) => Err("sites meet over tcp, as in 'tcp:192.0.2.1:7401'".into()),
        tcp => Ok(tcp),
    }
}

#[derive(Debug, Args)]
pub(crate) struct OfferArgs {
    #[command(flatten)]
    pub(crate) folder: IdentityFolder,
    #[command(flatten)]
    pub(crate) rule: RuleArgs,
    /// Where to wait for the other site; only while this runs
    #[arg(long, value_name = "tcp:HOST:PORT", value_parser = tcp)]
    pub(crate) listen: Endpoint,
    /// How long the code can be used
    #[arg(long, value_name = "TIME", default_value_t = humantime::Duration::from(PAIRING_LIFETIME), value_parser = |text: &str| lifetime(text).map(humantime::Duration::from))]
    pub(crate) lifetime: humantime::Duration,
    /// Write the code to this file, mode 0600, instead of showing it
    #[arg(long, value_name = "FILE")]
    pub(crate) code_file: Option<PathBuf>,
    /// Do not ask: the code alone decides
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AcceptArgs {
    #[command(flatten)]
    pub(crate) folder: IdentityFolder,
    #[command(flatten)]
    pub(crate) rule: RuleArgs,
    /// Where the other site waits
    #[arg(long, value_name = "tcp:HOST:PORT", value_parser = tcp)]
    pub(crate) connect: Endpoint,
    /// Read the code from this file, mode 0600, instead of asking for it
    #[arg(long, value_name = "FILE")]
    pub(crate) code_file: Option<PathBuf>,
    /// Do not ask: the code alone decides
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) folder: IdentityFolder,
    /// Where it is written
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The other site's exported file
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) folder: IdentityFolder,
    #[command(flatten)]
    pub(crate) rule: RuleArgs,
    /// SHA-256 of the authority in it, as the other site's operator reads it to you; once for each authority
    #[arg(long, value_name = "SHA-256", required = true)]
    pub(crate) fingerprint: Vec<Fingerprint>,
}

#[derive(Debug, Args)]
pub(crate) struct RevocationsArgs {
    /// Revocation lists, PEM
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) folder: IdentityFolder,
}
