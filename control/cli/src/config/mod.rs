//! `config`: check, print and describe a node's configuration, without a node.

pub(crate) mod args;

use std::path::{Path, PathBuf};

use novacron_configuration::{LoadError, Sources, as_yaml, with_origin};
use novacron_control_api::configuration::{Key, Mistake, Resolved, schema};
use serde_json::{Value, json};

use self::args::{CheckArgs, ConfigArgs, ConfigCommand, PlacesArgs, PrintArgs};
use crate::keys::Said;
use crate::report::{EXIT_DONE, EXIT_REFUSED};

/// Where a node's configuration stands unless told otherwise.
const FILE: &str = "/etc/novacron/novacron.yaml";

/// Runs one.
pub(crate) fn run(args: &ConfigArgs) -> Said {
    match &args.command {
        ConfigCommand::Check(args) => check(args),
        ConfigCommand::Print(args) => print(args),
        ConfigCommand::Schema => Said::done(crate::sessions::json(&schema())),
    }
}

fn sources(args: &PlacesArgs) -> Result<Sources, String> {
    let named = args.config.clone();
    // The usual file need not be there; one that is named must be.
    let file = named.or_else(|| Some(PathBuf::from(FILE)).filter(|file| Path::new(file).exists()));
    let flags = args.set.iter().map(|text| novacron_configuration::setting(text, "--set"));
    Ok(Sources { file, flags: flags.collect::<Result<_, _>>()? })
}

/// The environment, without what is no text: no key takes that.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn load(args: &PlacesArgs) -> Result<(Sources, Resolved), LoadError> {
    let sources = sources(args).map_err(|why| {
        let origin = novacron_control_api::configuration::Origin::Flag("--set".into());
        LoadError::Mistakes(vec![Mistake { origin, key: String::new(), what: why }])
    })?;
    let resolved = sources.load(environment())?;
    Ok((sources, resolved))
}

fn as_json(mistake: &Mistake) -> Value {
    json!({"at": mistake.origin.to_string(), "key": mistake.key, "what": mistake.what})
}

fn refused(json: bool, error: &LoadError) -> Said {
    let text = if json {
        let mistakes = match error {
            LoadError::Mistakes(mistakes) => mistakes.iter().map(as_json).collect(),
            LoadError::File { path, why } => {
                vec![json!({"at": path.display().to_string(), "key": "", "what": why})]
            }
        };
        crate::sessions::json(&json!({"good": false, "mistakes": mistakes}))
    } else {
        format!("{error}\nthe configuration is refused; correct it and check again\n")
    };
    Said { text, exit: EXIT_REFUSED }
}

fn check(args: &CheckArgs) -> Said {
    let (sources, resolved) = match load(&args.places) {
        Ok(loaded) => loaded,
        Err(error) => return refused(args.json, &error),
    };
    if args.json {
        let warnings: Vec<Value> = resolved.warnings.iter().map(as_json).collect();
        let text = crate::sessions::json(&json!({"good": true, "mistakes": [], "warnings": warnings}));
        return Said::done(text);
    }
    let mut text: String = resolved.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    let place = sources.file.map_or_else(
        || format!("no file ({FILE} does not exist): defaults, variables and flags"),
        |file| file.display().to_string(),
    );
    text += &format!("good: {place}; {} of the keys are set\n", resolved.origins.len());
    Said::done(text)
}

fn print(args: &PrintArgs) -> Said {
    let (_, resolved) = match load(&args.places) {
        Ok(loaded) => loaded,
        Err(error) => return refused(args.json, &error),
    };
    if args.json {
        let keys: Vec<Value> = resolved
            .configuration
            .values()
            .into_iter()
            .map(|(key, value)| {
                let effect = Key::find(key).map_or("", |key| key.takes_effect.words());
                json!({"key": key, "value": value, "from": resolved.origin(key).to_string(), "takes_effect": effect})
            })
            .collect();
        return Said::done(crate::sessions::json(&keys));
    }
    let text = if args.with_origin { with_origin(&resolved) } else { as_yaml(&resolved) };
    Said { text, exit: EXIT_DONE }
}
