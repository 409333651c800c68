//! Arguments.

use clap::{Args, Parser, Subcommand};

use crate::conditions::{Burst, Change};
use crate::control::Way;

/// Joins network namespaces by links with the rate, delay, jitter and loss that you ask for.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  novacron-lab up two-sites                   until ctrl-C; prints the lab's ID and how to enter its sites
  novacron-lab up my-topology.toml --seed 7
  novacron-lab exec 3fa9c1 a -- ping 10.99.1.2
  novacron-lab set 3fa9c1 wan --rate 200 --delay 20ms --loss 0.1%
  novacron-lab set 3fa9c1 wan --way forward --cut
  novacron-lab show 3fa9c1 --json
  novacron-lab check                          measures whether links do what they are asked

Needs root, /dev/net/tun, and ip (iproute2). Topologies that come along: two-sites, three-sites, slow-site.";

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Makes the sites and links of a topology and keeps them until ctrl-C or SIGTERM
    Up(UpArgs),
    /// Changes a link while it runs; what is not named stays
    Set(SetArgs),
    /// Shows what became of frames, and how late they left: of one lab, or of all that run
    Show(ShowArgs),
    /// Starts counters and lateness again
    Reset(LabArgs),
    /// Runs a command in a site
    Exec(ExecArgs),
    /// Measures whether links do what they are asked: about a minute on a quiet machine. Exit 1: they do not
    Check(CheckArgs),
    /// Removes what crashed labs left; living labs are not touched. Every `up` does so first
    Clean(JsonArgs),
}

#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// A file, or one of two-sites, three-sites, slow-site
    #[arg(required_unless_present = "hosted")]
    pub(super) topology: Option<String>,
    /// What chance comes from: the same seed loses the same frames [default: random; printed]
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// One line of JSON instead of words
    #[arg(long)]
    pub(super) json: bool,
    /// Reads the topology as a line of JSON from standard input and ends with it: for programs that start a lab
    #[arg(long, conflicts_with = "topology")]
    pub(super) hosted: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// What chance comes from; fixed, as one check in a few hundred fails by chance alone
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// JSON instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct LabArgs {
    /// The lab's ID
    pub(super) lab: String,
}

#[derive(Debug, Args)]
pub(super) struct JsonArgs {
    /// JSON instead of words
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The lab's ID [default: all that run]
    pub(super) lab: Option<String>,
    /// JSON instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// The lab's ID
    pub(super) lab: String,
    /// The site
    pub(super) site: String,
    /// The command and its arguments
    #[arg(required = true, last = true)]
    pub(super) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The lab's ID
    pub(super) lab: String,
    /// The link
    pub(super) link: String,
    /// Which direction
    #[arg(long, value_enum, default_value_t)]
    pub(super) way: Way,
    /// Mbit/s of whole Ethernet frames; `unlimited`
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// One-way delay: 20ms, 1.5s
    #[arg(long, value_parser = ms)]
    delay: Option<f64>,
    /// The delay wanders by so much to both sides: 2ms
    #[arg(long, value_parser = ms)]
    jitter: Option<f64>,
    /// Frames lost each for itself: 0.1%
    #[arg(long, value_parser = percent)]
    loss: Option<f64>,
    /// Frames lost in runs: how many of all, and how long a run is on average: 1%/20
    #[arg(long, value_parser = burst)]
    burst: Option<Burst>,
    /// Ends losses in runs
    #[arg(long, conflicts_with = "burst")]
    pub(super) no_burst: bool,
    /// Frames that are held back so that others overtake: 1%
    #[arg(long, value_parser = percent)]
    reorder: Option<f64>,
    /// For how long: 2ms
    #[arg(long, value_parser = ms)]
    reorder_by: Option<f64>,
    /// Frames that arrive twice: 1%
    #[arg(long, value_parser = percent)]
    duplicate: Option<f64>,
    /// How much may wait for the rate, in time
    #[arg(long, value_parser = ms, conflicts_with = "queue_kb")]
    queue: Option<f64>,
    /// The same in thousand bytes
    #[arg(long)]
    queue_kb: Option<f64>,
    /// Nothing passes
    #[arg(long)]
    cut: bool,
    /// Frames pass again
    #[arg(long, conflicts_with = "cut")]
    no_cut: bool,
}

impl SetArgs {
    pub(super) fn change(&self) -> Change {
        Change {
            rate_mbit: self.rate,
            delay_ms: self.delay,
            jitter_ms: self.jitter,
            loss_percent: self.loss,
            burst: self.burst,
            reorder_percent: self.reorder,
            reorder_ms: self.reorder_by,
            duplicate_percent: self.duplicate,
            queue_ms: self.queue,
            queue_kb: self.queue_kb,
            cut: if self.cut { Some(true) } else { self.no_cut.then_some(false) },
        }
    }
}

fn number(text: &str, what: &str) -> Result<f64, String> {
    let number: Option<f64> = text.trim().parse().ok();
    number.filter(|number| number.is_finite() && *number >= 0.0).ok_or_else(|| format!("expected {what}"))
}

fn ms(text: &str) -> Result<f64, String> {
    const WHAT: &str = "a time, as 20ms or 1.5s";
    if let Some(ms) = text.strip_suffix("ms") {
        return number(ms, WHAT);
    }
    match text.strip_suffix('s') {
        Some(seconds) => number(seconds, WHAT).map(|seconds| seconds * 1000.0),
        None if text == "0" => Ok(0.0),
        None => Err(format!("expected {WHAT}")),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    const WHAT: &str = "a percentage, as 0.1%";
    number(text.strip_suffix('%').unwrap_or(text), WHAT)
}

fn rate(text: &str) -> Result<f64, String> {
    if text == "unlimited" {
        return Ok(0.0);
    }
    number(text, "a rate in Mbit/s, or unlimited")
}

fn burst(text: &str) -> Result<Burst, String> {
    const WHAT: &str = "losses and the length of a run in frames, as 1%/20";
    let (loss, frames) = text.split_once('/').ok_or_else(|| format!("expected {WHAT}"))?;
    let (loss, frames) = (percent(loss)?, number(frames, WHAT)?);
    if loss > 100.0 || frames < 1.0 {
        return Err(format!("expected {WHAT}; a run has at least one frame"));
    }
    Ok(Burst::of(loss, frames))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn values_carry_units() {
        assert_eq!(ms("20ms"), Ok(20.0));
        assert_eq!(ms("1.5s"), Ok(1500.0));
        assert!(ms("20").is_err(), "seconds or milliseconds?");
        assert_eq!(percent("0.1%"), Ok(0.1));
        assert_eq!(rate("unlimited"), Ok(0.0));
        assert!(rate("-3").is_err());
        assert!((burst("1%/20").unwrap().share() - 0.01).abs() < 1e-9);
        assert!(burst("1%").is_err());
    }

    #[test]
    fn what_is_not_named_is_not_changed() {
        let cli = Cli::parse_from(["novacron-lab", "set", "1", "wan", "--no-cut", "--delay", "5ms"]);
        let Verb::Set(args) = cli.verb else { panic!("{cli:?}") };
        let expected = Change { delay_ms: Some(5.0), cut: Some(false), ..Change::default() };
        assert_eq!(args.change(), expected);
    }
}
