//! The command line.

use std::path::PathBuf;

use clap::Parser;
use novacron_configuration::{Sources, setting};
use novacron_control_api::configuration::{Entry, Origin, Raw};

/// Starts and watches a node's dataplane, takes commands for it, and says how it is.
///
/// A gateway that runs already is adopted, with its sessions; another is started otherwise. When this process ends, by a
/// signal or a crash, a gateway that carries sessions goes on.
#[derive(Debug, Parser)]
#[command(
    name = "novacron-control",
    version,
    after_help = "Examples:
  novacron-control --config /etc/novacron/novacron.yaml
  A laboratory on one machine, nothing encrypted:
    novacron-control --data-dir /tmp/nc --set system.control_socket=/tmp/nc/control.sock \\
      --set dwcp.gateway_socket=/tmp/nc/gateway.sock --set network.enable_tls=false --set security.enable_encryption=false

What stands later wins: defaults, the file, NOVACRON_* variables, flags. `novactl config print --with-origin` shows it.
SIGHUP, or a change of the file, reads the configuration again: all of it is taken, or none."
)]
pub(crate) struct Args {
    /// The configuration, YAML or JSON [default: /etc/novacron/novacron.yaml, where it exists]
    #[arg(long, value_name = "FILE", env = "NOVACRON_CONFIG")]
    config: Option<PathBuf>,

    /// system.node_id: the node's name
    #[arg(long, value_name = "NAME")]
    node_id: Option<String>,

    /// system.data_dir: where the node keeps what must outlive it
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,

    /// system.log_level: least severe message that is logged
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// dwcp.forced_mode: datacenter, internet or hybrid
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,

    /// Any value; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Where the configuration stands unless told otherwise.
const FILE: &str = "/etc/novacron/novacron.yaml";

impl Args {
    /// The places of the configuration.
    ///
    /// # Errors
    /// When a `--set` is none.
    pub(crate) fn sources(&self) -> Result<Sources, String> {
        let file = self.config.clone().or_else(|| Some(PathBuf::from(FILE)).filter(|file| file.exists()));
        let mut flags = Vec::new();
        for text in &self.set {
            flags.push(setting(text, "--set").map_err(|why| format!("--set {text}: {why}"))?);
        }
        let named = [
            ("--node-id", "system.node_id", &self.node_id),
            ("--data-dir", "system.data_dir", &self.data_dir),
            ("--log-level", "system.log_level", &self.log_level),
            ("--mode", "dwcp.forced_mode", &self.mode),
        ];
        for (flag, path, value) in named {
            if let Some(value) = value {
                let origin = Origin::Flag(flag.to_owned());
                flags.push(Entry { path: path.to_owned(), raw: Raw::Given(value.clone()), origin });
            }
        }
        Ok(Sources { file, flags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_are_named_as_they_were_written() {
        let args =
            Args::parse_from(["novacron-control", "--log-level", "loud", "--set", "network.bind_port=1"]);
        let sources = Sources { file: None, ..args.sources().unwrap() };
        let why = sources.load([]).unwrap_err().to_string();
        assert!(why.starts_with("flag --log-level: system.log_level: loud is not"), "{why}");
        assert!(Args::parse_from(["novacron-control", "--set", "a"]).sources().is_err());
    }
}
