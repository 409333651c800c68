//! `novactl keys`: the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use novacron_keys::limits::{AUTHORITY_DAYS, AUTHORITY_DAYS_MAX, CERTIFICATE_DAYS, CERTIFICATE_DAYS_MAX};
use novacron_keys::{Identity, Name, Role, Site, Why};

/// Exit codes of `keys` and `pair`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  keys list: a certificate or authority needs somebody to act
  2  wrong usage
  4  refused or failed; the message says what was changed, and it is nothing unless it says so";

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    pub(crate) command: KeysCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a site's two authorities: one for its gateways, one for the callers of its fleet
    ///
    /// Their keys are encrypted when a passphrase is found: in --passphrase-file, in $NOVACRON_KEYS_PASSPHRASE, or as the
    /// systemd credential novacron-keys-passphrase. Otherwise their files are their owner's only (0600).
    #[command(
        after_help = "Examples:\n  novactl keys init site-a --keys /etc/novacron/keys\n  novactl keys init site-a --passphrase-file /run/keys/passphrase"
    )]
    Init(InitArgs),
    /// Make a key and a request for its certificate, on the host where the key is to stay
    #[command(
        after_help = "Example, the authority being on another host:\n  novactl keys request site-a/gateway/gw-1 --identity /etc/novacron/identity --out gw-1.csr\n  (there)  novactl keys issue gateway/gw-1 --request gw-1.csr --out gw-1.pem\n  novactl keys install gw-1.pem --identity /etc/novacron/identity"
    )]
    Request(RequestArgs),
    /// Issue the first certificate of a gateway or caller
    ///
    /// With --identity into a folder that a gateway reads (gateway.crt, gateway.key, authorities.pem, revoked.pem,
    /// peers.toml); with --request for a key that was made elsewhere.
    #[command(
        after_help = "Examples:\n  novactl keys issue gateway/gw-1 --identity /etc/novacron/identity\n  novactl keys issue gateway/gw-1 --request gw-1.csr --out gw-1.pem\n  novactl keys issue caller/alice --identity ~/.config/novacron"
    )]
    Issue(IssueArgs),
    /// Issue a successor; the old certificate stays valid until its end, so that no session drops
    #[command(
        after_help = "Examples:\n  novactl keys rotate gateway/gw-1 --identity /etc/novacron/identity\n  novactl keys rotate gateway/gw-1 --request gw-1.csr --out gw-1.pem"
    )]
    Rotate(IssueArgs),
    /// Install the answer to a request beside its key
    #[command(after_help = "Example:\n  novactl keys install gw-1.pem --identity /etc/novacron/identity")]
    Install(InstallArgs),
    /// List what was issued and until when it is valid; exit code 1 when something needs somebody to act
    #[command(
        after_help = "Examples:\n  novactl keys list\n  novactl keys list --expiring-within 14d --json     for monitoring"
    )]
    List(ListArgs),
    /// Show one certificate: by serial number, by holder, or of a file
    #[command(
        after_help = "Examples:\n  novactl keys show gateway/gw-1\n  novactl keys show /etc/novacron/identity/gateway.crt"
    )]
    Show(ShowArgs),
    /// Take back a certificate, or all of a holder, and write the revocation list
    ///
    /// Gateways refuse it, and end its sessions, once they have the new list: copy it to each gateway's folder, with
    /// --identity or with 'novactl pair revocations' where it is another site's.
    #[command(
        after_help = "Examples:\n  novactl keys revoke gateway/gw-1 --reason key-compromise\n  novactl keys revoke 4f1c... --reason superseded --identity /etc/novacron/identity"
    )]
    Revoke(RevokeArgs),
}

/// Where the authorities are.
#[derive(Debug, Args)]
pub(crate) struct KeysFolder {
    /// The keys folder
    #[arg(long, value_name = "DIR", env = "NOVACRON_KEYS", default_value = "/etc/novacron/keys")]
    pub(crate) keys: PathBuf,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where an authority's passphrase is.
#[derive(Debug, Args)]
pub(crate) struct PassphraseFile {
    /// A file, mode 0600, whose first line is the passphrase of the authority's key
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The site's name, as 'site-a' or 'fra1.example.net'
    pub(crate) site: Site,
    #[command(flatten)]
    pub(crate) folder: KeysFolder,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseFile,
    /// How long the authorities are valid, in days
    #[arg(long, default_value_t = AUTHORITY_DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(AUTHORITY_DAYS_MAX)))]
    pub(crate) days: u32,
}

#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    /// For whom, with its site: 'site-a/gateway/gw-1'
    #[arg(value_parser = identity)]
    pub(crate) holder: Identity,
    /// The folder in which the key is made and stays
    #[arg(long, value_name = "DIR")]
    pub(crate) identity: PathBuf,
    /// Where the request is written
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// For whom: 'gateway/NAME' or 'caller/NAME'
    #[arg(value_parser = holder)]
    pub(crate) holder: Holder,
    #[command(flatten)]
    pub(crate) folder: KeysFolder,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseFile,
    /// The identity folder that gets certificate and key
    #[arg(long, value_name = "DIR", required_unless_present = "request", conflicts_with_all = ["request", "out"])]
    pub(crate) identity: Option<PathBuf>,
    /// A request (CSR, PEM) for a key that was made elsewhere
    #[arg(long, value_name = "FILE", requires = "out")]
    pub(crate) request: Option<PathBuf>,
    /// Where the answer to the request is written
    #[arg(long, value_name = "FILE", requires = "request")]
    pub(crate) out: Option<PathBuf>,
    /// How long the certificate is valid, in days
    #[arg(long, default_value_t = CERTIFICATE_DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(CERTIFICATE_DAYS_MAX)))]
    pub(crate) days: u32,
}

#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// The answer to the request
    pub(crate) file: PathBuf,
    /// The folder in which the request was made
    #[arg(long, value_name = "DIR")]
    pub(crate) identity: PathBuf,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) folder: KeysFolder,
    /// What ends within this time, and has no successor, needs somebody to act: as '14d' or '36h'
    #[arg(long, value_name = "TIME", default_value = "14d", value_parser = humantime::parse_duration)]
    pub(crate) expiring_within: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A serial number, 'gateway/NAME', 'caller/NAME', or a PEM file
    pub(crate) which: String,
    #[command(flatten)]
    pub(crate) folder: KeysFolder,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// A serial number, or 'gateway/NAME' or 'caller/NAME' for all of a holder
    pub(crate) which: String,
    #[command(flatten)]
    pub(crate) folder: KeysFolder,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseFile,
    /// Why
    #[arg(long, value_enum, default_value_t = Reason::Unspecified)]
    pub(crate) reason: Reason,
    /// A gateway's identity folder on this host that gets the new list at once
    #[arg(long, value_name = "DIR")]
    pub(crate) identity: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reason {
    /// No reason is told
    Unspecified,
    /// Somebody else may hold the key
    KeyCompromise,
    /// A successor took its place
    Superseded,
    /// The holder is no more
    CessationOfOperation,
}

impl From<Reason> for Why {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unspecified => Self::Unspecified,
            Reason::KeyCompromise => Self::KeyCompromise,
            Reason::Superseded => Self::Superseded,
            Reason::CessationOfOperation => Self::CessationOfOperation,
        }
    }
}

/// A holder of the keys folder's site; a site may be named, and is compared then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) site: Option<Site>,
    pub(crate) role: Role,
    pub(crate) name: Name,
}

impl Holder {
    /// Its identity at a site.
    pub(crate) fn at(&self, site: &Site) -> Identity {
        let site = self.site.as_ref().unwrap_or(site).clone();
        Identity { site, role: self.role, name: self.name.clone() }
    }
}

/// `gateway/NAME`, `SITE/gateway/NAME` or a whole identity.
pub(crate) fn holder(text: &str) -> Result<Holder, String> {
    let wrong = |why: novacron_keys::IdentityError| why.to_string();
    if text.matches('/').count() == 1
        && let Some((role, name)) = text.split_once('/')
    {
        return Ok(Holder {
            site: None,
            role: role.parse().map_err(wrong)?,
            name: name.parse().map_err(wrong)?,
        });
    }
    let Identity { site, role, name } = identity(text)?;
    Ok(Holder { site: Some(site), role, name })
}

/// `SITE/gateway/NAME`, with or without `novacron://` in front.
fn identity(text: &str) -> Result<Identity, String> {
    let bare = text.strip_prefix("novacron://").unwrap_or(text);
    format!("novacron://{bare}").parse().map_err(|why: novacron_keys::IdentityError| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_named_with_or_without_its_site() {
        let site: Site = "site-a".parse().expect("a site");
        for text in ["gateway/gw-1", "site-a/gateway/gw-1", "novacron://site-a/gateway/gw-1"] {
            assert_eq!(
                holder(text).expect("a holder").at(&site).to_string(),
                "novacron://site-a/gateway/gw-1"
            );
        }
        for wrong in ["", "gw-1", "router/gw-1", "gateway/", "gateway/GW", "a/b/c/d", "https://a/gateway/b"] {
            assert!(holder(wrong).is_err(), "{wrong}");
        }
    }
}
