//! `token`: callers' tokens. The new one is made here and written to a file; only its digest is sent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use novacron_control_api::Timestamp;
use novacron_control_api::control::{KeptToken, TokenList};
use serde_json::{Value, json};

use super::Node;
use super::args::NodeArgs;
use crate::keys::{Failed, Said};
use crate::migrate::new_id;
use crate::session::write_new_token;
use crate::sessions::{json as as_json, printable};

const EXAMPLES: &str = "\
Examples:
  novactl token rotate fleet --out /etc/fleet/novacron.token    both are taken for a day, then the new one alone
  novactl token rotate fleet --out new.token --overlap 0s       the old one is of no use from now
  novactl token revoke fleet                                    all of them, at once";

/// Tokens of callers.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a new token of a name, or its first; the old one is taken beside it for a while
    ///
    /// The token is made here and written to a new file of its owner alone; the node gets its SHA-256 and never the token. What
    /// it may do is what security.admins, .operators and .viewers say of token:NAME.
    #[command(after_help = EXAMPLES)]
    Rotate(RotateArgs),
    /// List the tokens that are taken, by name and digest
    #[command(after_help = EXAMPLES)]
    List(NodeArgs),
    /// Take a name's tokens back; open connections may do nothing more
    #[command(after_help = EXAMPLES)]
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// Whose: token:NAME in the node's lists of callers
    pub(crate) name: String,
    /// A file that must not exist: it gets the new token
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// How long the old token is taken beside the new one
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = humantime::parse_duration)]
    pub(crate) overlap: Duration,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// Whose
    pub(crate) name: String,
    /// Only those that another follows already
    #[arg(long)]
    pub(crate) old_only: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// Carries one of them out.
pub(crate) fn token(command: &TokenCommand) -> Result<Said, Failed> {
    match command {
        TokenCommand::List(args) => {
            let found: TokenList = Node::connect(args)?.call("token.list", &json!({}))?;
            Ok(shown(args, &found, table(&found.tokens)))
        }
        TokenCommand::Rotate(args) => rotate(args),
        TokenCommand::Revoke(args) => {
            let params = json!({"name": args.name, "old_only": args.old_only});
            let left: TokenList = Node::connect(&args.node)?.call("token.revoke", &keyed(params)?)?;
            let text = format!("tokens of {} are taken back; left are:\n{}", args.name, table(&left.tokens));
            Ok(shown(&args.node, &left, text))
        }
    }
}

fn rotate(args: &RotateArgs) -> Result<Said, Failed> {
    // Connected first: a token that no node knows is of no use.
    let mut node = Node::connect(&args.node)?;
    let sha256 = write_new_token(&args.out).map_err(Failed::Words)?;
    let overlap_ms = u64::try_from(args.overlap.as_millis()).unwrap_or(u64::MAX);
    let params = json!({"name": args.name, "sha256": sha256, "overlap_ms": overlap_ms});
    let taken: Result<TokenList, Failed> = node.call("token.rotate", &keyed(params)?);
    let taken = match taken {
        Ok(taken) => taken,
        Err(why) => return Err(not_taken(&args.out, &mut node, &sha256, &why)),
    };
    let text = format!(
        "{} holds the new token of {}; the old ones are taken for {} more\n{}",
        args.out.display(),
        args.name,
        humantime::format_duration(args.overlap),
        table(&taken.tokens)
    );
    Ok(shown(&args.node, &taken, text))
}

/// A token that the node does not take is of no use to anybody; where it may have been taken, it is kept.
fn not_taken(out: &Path, node: &mut Node, sha256: &str, why: &Failed) -> Failed {
    let known: Result<TokenList, Failed> = node.call("token.list", &json!({}));
    let taken = |list: &TokenList| list.tokens.iter().any(|token| token.sha256.to_string() == sha256);
    match known {
        Ok(list) if !taken(&list) => {
            let _ = std::fs::remove_file(out);
            Failed::Words(format!("{why}; no token was made"))
        }
        Ok(_) => Failed::Words(format!("{why}; yet the node takes the token in {}", out.display())),
        Err(_) => Failed::Words(format!(
            "{why}; whether the node takes the token in {} is not known: 'novactl token list' tells",
            out.display()
        )),
    }
}

/// With a key: a call that is lost on its way may be repeated by hand.
fn keyed(mut params: Value) -> Result<Value, Failed> {
    let key = new_id().map_err(|trouble| Failed::Words(trouble.message().to_owned()))?;
    params["idempotency_key"] = json!(format!("novactl-token-{key}"));
    Ok(params)
}

fn shown(args: &NodeArgs, list: &TokenList, text: String) -> Said {
    Said::done(if args.json { as_json(list) } else { text })
}

fn table(tokens: &[KeptToken]) -> String {
    let mut text = format!("{:<24}  {:<24}  SHA-256\n", "NAME", "TAKEN UNTIL");
    for one in tokens {
        let until = one.until.as_ref().map_or_else(|| "revoked".to_owned(), Timestamp::to_string);
        text += &format!("{:<24}  {:<24}  {}\n", printable(&one.name), until, one.sha256);
    }
    text
}
