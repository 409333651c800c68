//! The command line of `config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  novactl config check --config novacron.yaml          exit code 4 and every mistake with its line, or 0
  novactl config print --with-origin                   each value and where it came from
  NOVACRON_LOG_LEVEL=debug novactl config print --set dwcp.transport.min_streams=8
  novactl config schema > novacron.schema.json         for editors

What stands later wins: defaults, the file, NOVACRON_* variables, --set.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Read everything and say what is wrong, with file, line, key and what was expected
    #[command(after_help = "Example:\n  novactl config check --config novacron.yaml")]
    Check(CheckArgs),
    /// Print the configuration as it would be in force
    #[command(after_help = "Example:\n  novactl config print --with-origin")]
    Print(PrintArgs),
    /// Print the JSON Schema of the file
    #[command(after_help = "Example:\n  novactl config schema > novacron.schema.json")]
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct PlacesArgs {
    /// The file, YAML or JSON [default: /etc/novacron/novacron.yaml, where it exists]
    #[arg(long, value_name = "FILE", env = "NOVACRON_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// A value that wins over file and variables; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) places: PlacesArgs,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PrintArgs {
    #[command(flatten)]
    pub(crate) places: PlacesArgs,
    /// A line for each key, with where its value came from
    #[arg(long)]
    pub(crate) with_origin: bool,
    /// JSON on stdout, places included
    #[arg(long)]
    pub(crate) json: bool,
}
