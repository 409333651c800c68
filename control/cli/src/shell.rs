//! What shells and manuals need, made from the command line itself.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::keys::{Failed, Said};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  novactl completion bash > /usr/share/bash-completion/completions/novactl
  novactl completion zsh  > \"${fpath[1]}/_novactl\"")]
pub(crate) struct CompletionArgs {
    /// For which shell
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  novactl man /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Where the pages are written, one for each command
    pub(crate) folder: PathBuf,
}

/// Prints a shell's completion.
pub(crate) fn completion(args: &CompletionArgs) -> Said {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "novactl", &mut text);
    Said::done(String::from_utf8_lossy(&text).into_owned())
}

/// Writes the manual's pages.
pub(crate) fn man(args: &ManArgs) -> Result<Said, Failed> {
    let told = |error: std::io::Error| {
        Failed::Words(format!("{} cannot be written: {error}", args.folder.display()))
    };
    std::fs::create_dir_all(&args.folder).map_err(told)?;
    clap_mangen::generate_to(Cli::command(), &args.folder).map_err(told)?;
    Ok(Said::done(format!("written to {}\n", args.folder.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_completes_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = completion(&CompletionArgs { shell }).text;
            for command in Cli::command().get_subcommands() {
                assert!(text.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        man(&ManArgs { folder: folder.path().to_owned() }).unwrap();
        for command in Cli::command().get_subcommands() {
            let page = folder.path().join(format!("novactl-{}.1", command.get_name()));
            assert!(page.is_file(), "{}", page.display());
        }
    }
}
