//! `keys`: a site's authorities and what they issue. The work is done by `novacron-keys`; here it is told.

pub(crate) mod args;
mod list;

use std::path::Path;
use std::time::SystemTime;

use novacron_keys::store::{self, Mode};
use novacron_keys::{
    Certificate, Identity, KeyError, Ledger, LedgerError, Passphrase, Request, Role, Trust, TrustError,
    Which, read_reply, reply, secret,
};
use serde_json::json;

use self::args::{InitArgs, InstallArgs, IssueArgs, KeysArgs, KeysCommand, RequestArgs, RevokeArgs};
use crate::report::{EXIT_DONE, EXIT_REFUSED};

/// What a command says and its exit code.
pub(crate) struct Said {
    /// For stdout.
    pub(crate) text: String,
    /// The exit code.
    pub(crate) exit: u8,
}

impl Said {
    /// A command that did what it should.
    pub(crate) fn done(text: String) -> Self {
        Self { text, exit: EXIT_DONE }
    }
}

/// Why a command did not do what it should, in words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] novacron_keys::StoreError),
    #[error(transparent)]
    Passphrase(#[from] secret::PassphraseError),
    #[error("{0}")]
    Words(String),
}

impl Failed {
    /// The exit code of every failure here: nothing was changed, or the message says what was.
    pub(crate) const EXIT: u8 = EXIT_REFUSED;
}

/// Runs one.
pub(crate) fn run(args: &KeysArgs) -> Result<Said, Failed> {
    let now = SystemTime::now();
    match &args.command {
        KeysCommand::Init(args) => init(args, now),
        KeysCommand::Request(args) => request(args),
        KeysCommand::Issue(args) => issue(args, false, now),
        KeysCommand::Rotate(args) => issue(args, true, now),
        KeysCommand::Install(args) => install(args, now),
        KeysCommand::List(args) => list::list(args, now),
        KeysCommand::Show(args) => list::show(args, now),
        KeysCommand::Revoke(args) => revoke(args, now),
    }
}

fn passphrase(file: Option<&Path>) -> Result<Option<Passphrase>, Failed> {
    Ok(Passphrase::find(file, |name| std::env::var_os(name))?)
}

/// Indented JSON or words.
pub(crate) fn either(json: bool, value: &serde_json::Value, words: String) -> Said {
    Said::done(if json { crate::sessions::json(value) } else { words })
}

fn init(args: &InitArgs, now: SystemTime) -> Result<Said, Failed> {
    let passphrase = passphrase(args.passphrase.passphrase_file.as_deref())?;
    let keys = &args.folder.keys;
    let made = Ledger::init(keys, &args.site, args.days, passphrase.as_ref(), now)?;
    let rest = match &passphrase {
        Some(passphrase) => format!("encrypted with the passphrase from {}", passphrase.from),
        None => "not encrypted, readable by their owner only; a passphrase would encrypt them \
                 (novactl keys init --help)"
            .into(),
    };
    let mut text = format!("site {}: two authorities in {}\n", args.site, keys.display());
    for ledger in &made {
        let certificate = &ledger.certificate;
        text += &format!(
            "  {:<7} until {}  SHA-256 {}\n",
            ledger.name.role, certificate.not_after, certificate.fingerprint
        );
    }
    text += &format!(
        "their keys are {rest}\nnext: novactl keys issue gateway/NAME --identity DIR --keys {}\n",
        keys.display()
    );
    let value = json!({
        "site": args.site,
        "keys": keys,
        "encrypted": passphrase.is_some(),
        "authorities": made.iter().map(|ledger| &ledger.certificate).collect::<Vec<_>>(),
    });
    Ok(either(args.folder.json, &value, text))
}

fn request(args: &RequestArgs) -> Result<Said, Failed> {
    let text = Trust::at(&args.identity).request(&args.holder)?;
    store::write(&args.out, text.as_bytes(), Mode::Public)?;
    let value = json!({ "holder": args.holder, "request": args.out, "identity": args.identity });
    let words = format!(
        "request for {} written to {}; its key stays in {}\nnext, where the authority is: novactl keys issue {}/{} \
         --request {} --out ANSWER\n",
        args.holder,
        args.out.display(),
        args.identity.display(),
        args.holder.role,
        args.holder.name,
        args.out.display()
    );
    Ok(either(args.json, &value, words))
}

fn issue(args: &IssueArgs, rotating: bool, now: SystemTime) -> Result<Said, Failed> {
    let keys = &args.folder.keys;
    let ledger = Ledger::open(keys, args.holder.role)?;
    let identity = args.holder.at(&ledger.name.site);
    let request = match &args.request {
        Some(file) => Some(Request::read(&store::read_text(file)?)?),
        None => None,
    };
    // Before anything is issued: a certificate whose key cannot be stored is lost at once.
    if let Some(folder) = &args.identity {
        store::folder(folder)?;
    }
    let passphrase = passphrase(args.passphrase.passphrase_file.as_deref())?;
    let issued = ledger.issue(&identity, request.as_ref(), rotating, args.days, passphrase.as_ref(), now)?;
    let certificate = &issued.certificate;
    let bundle = Ledger::open(keys, Role::Gateway)?.bundle(now)?;
    let lost = |why: String| {
        Failed::Words(format!(
            "{why}\nthe certificate {} was issued all the same, and its key is lost: take it back with 'novactl keys \
             revoke {}', then issue again",
            certificate.serial, certificate.serial
        ))
    };
    let place = match (&args.identity, &args.out) {
        (Some(folder), _) => {
            Trust::at(folder)
                .install(certificate, issued.key.as_ref(), &ledger.certificate, &bundle, now)
                .map_err(|why| lost(why.to_string()))?;
            format!("in {}; a gateway that runs takes it by itself\n", folder.display())
        }
        (None, Some(out)) => {
            let text = reply(certificate, &ledger.certificate, &bundle);
            store::write(out, text.as_bytes(), Mode::Public).map_err(|why| lost(why.to_string()))?;
            format!(
                "in {}\nnext, where the request was made: novactl keys install FILE --identity DIR\n",
                out.display()
            )
        }
        (None, None) => {
            return Err(Failed::Words("neither --identity nor --out: nothing was written".into()));
        }
    };
    let value = json!({ "certificate": certificate, "identity": args.identity, "out": args.out });
    let before = if rotating { "; the one before stays valid until its end" } else { "" };
    let words = format!("{}{before}\n{place}", told(&identity, certificate));
    Ok(either(args.folder.json, &value, words))
}

fn told(identity: &Identity, certificate: &Certificate) -> String {
    format!(
        "{identity}: certificate {} until {}\nSHA-256 {}",
        certificate.serial, certificate.not_after, certificate.fingerprint
    )
}

fn install(args: &InstallArgs, now: SystemTime) -> Result<Said, Failed> {
    let (certificate, signer, bundle) = read_reply(&store::read(&args.file)?, now)?;
    Trust::at(&args.identity).install(&certificate, None, &signer, &bundle, now)?;
    let value = json!({ "certificate": certificate, "authority": signer, "identity": args.identity });
    let words = format!(
        "{} installed in {}, until {}\nit believes {} (SHA-256 {}): compare with 'novactl keys list' where the authority is\n",
        certificate.holder,
        args.identity.display(),
        certificate.not_after,
        signer.holder,
        signer.fingerprint
    );
    Ok(either(args.json, &value, words))
}

fn revoke(args: &RevokeArgs, now: SystemTime) -> Result<Said, Failed> {
    let keys = &args.folder.keys;
    let (ledger, which) = find(keys, &args.which)?;
    let passphrase = passphrase(args.passphrase.passphrase_file.as_deref())?;
    let done = ledger.revoke(&which, args.reason.into(), passphrase.as_ref(), now)?;
    let list = ledger.revocation_list_path();
    let mut words = if done.is_empty() {
        "taken back before; nothing more is to do but to hand the list on\n".to_owned()
    } else {
        done.iter()
            .map(|entry| format!("taken back: {} {}\n", entry.certificate.serial, entry.certificate.holder))
            .collect()
    };
    match &args.identity {
        Some(folder) => {
            Trust::at(folder).revoke(vec![ledger.revocation_list()?]).map_err(|why| {
                Failed::Words(format!(
                    "{words}{why}\nthe list {} is made; only {} did not get it",
                    list.display(),
                    folder.display()
                ))
            })?;
            words += &format!("{} has the new list\n", folder.display());
        }
        None => words += "no gateway knows yet\n",
    }
    words += &format!(
        "next, at every gateway of this site and of paired ones: novactl pair revocations {} --identity DIR\n",
        list.display()
    );
    let value = json!({ "revoked": done, "list": list });
    Ok(either(args.folder.json, &value, words))
}

/// The certificates that a text names: a serial number of either authority, or a holder.
fn find(keys: &Path, text: &str) -> Result<(Ledger, Which), Failed> {
    if text.contains('/') {
        let holder = args::holder(text).map_err(Failed::Words)?;
        let ledger = Ledger::open(keys, holder.role)?;
        let identity = holder.at(&ledger.name.site);
        return Ok((ledger, Which::Identity(identity)));
    }
    let serial = text.to_ascii_lowercase().replace(':', "");
    let mut known = None;
    for role in Role::ALL {
        let ledger = Ledger::open(keys, role)?;
        if ledger.issued(&serial) {
            known = Some(ledger);
        }
    }
    let ledger = known.ok_or_else(|| LedgerError::Unknown(text.to_owned()))?;
    Ok((ledger, Which::Serial(serial)))
}
