//! `novactl node`: what a node tells of itself, and what can be done to it, in tables and as JSON.

use anyhow::{Context, Result, ensure};
use novacron_testbed::control::Control;
use novacron_testbed::rpc::Refused;
use novacron_testbed::session::unix;
use novacron_testbed::{Gateway, GatewayOptions, Scratch, Session, novactl};
use serde_json::{Value, json};

/// Runs `novactl node ...` against a control process: its exit code and what it said.
fn node(scratch: &Scratch, control: &Control, words: &[&str]) -> Result<(Option<i32>, String)> {
    let socket = control.socket().display().to_string();
    let arguments = [&["node"], words, &["--control", &socket]].concat();
    let (status, said) = novactl::run(scratch, "novactl-node", &arguments)?;
    Ok((status.code(), said))
}

fn as_json(scratch: &Scratch, control: &Control, word: &str) -> Result<Value> {
    let (_, said) = node(scratch, control, &[word, "--json"])?;
    serde_json::from_str(&said).with_context(|| format!("{word}: {said}"))
}

#[test]
fn a_node_tells_everything_in_tables_and_as_json() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let control = Control::start(scratch, "a", &[])?;
        let (code, said) = node(scratch, &control, &["caller"])?;
        ensure!(code == Some(0) && said.contains("uid:") && said.contains("admin"), "{said}");
        ensure!(as_json(scratch, &control, "caller")?["role"] == "admin");

        let (code, said) = node(scratch, &control, &["environment"])?;
        let found = as_json(scratch, &control, "environment")?;
        // Whether this machine is short of something is its own affair: the exit code says the same as the list.
        let short = found["short"].as_array().context("no list")?;
        ensure!(code == Some(i32::from(!short.is_empty())), "{code:?}: {said}");
        ensure!(said.contains("FOUND") && said.contains("mode"), "{said}");

        let (code, said) = node(scratch, &control, &["features"])?;
        ensure!(code == Some(0) && said.contains("transport") && said.contains("100 %"), "{said}");
        ensure!(as_json(scratch, &control, "features")?["rollout_percentage"] == 100);

        let (code, said) = node(scratch, &control, &["config"])?;
        ensure!(
            code == Some(0) && said.contains("monitoring.enable_tracing") && said.contains("novacron.yaml:"),
            "{said}"
        );
        let values = as_json(scratch, &control, "config")?;
        let name =
            values["values"].as_array().into_iter().flatten().find(|one| one["key"] == "system.node_id");
        ensure!(name.is_some_and(|one| one["value"] == "a"), "{values}");

        let methods = as_json(scratch, &control, "methods")?;
        let names: Vec<&str> = methods["methods"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["name"].as_str())
            .collect();
        for name in ["migration.report", "token.rotate", "session.open"] {
            ensure!(names.contains(&name), "{name}: {names:?}");
        }

        control.configure(&[("system.log_level", "\"debug\""), ("network.max_connections", "50")])?;
        // The file's own watcher may have been faster: then nothing is new, and what waits for a restart still does.
        let (code, said) = node(scratch, &control, &["reload"])?;
        ensure!(code == Some(0) && said.contains("network.max_connections"), "{said}");
        control.configure(&[("system.log_level", "\"loud\"")])?;
        let (code, said) = node(scratch, &control, &["reload"])?;
        ensure!(code == Some(4) && said.contains("system.log_level") && said.contains("next:"), "{said}");
        Ok(())
    })
}

#[test]
fn a_gateway_that_is_drained_takes_no_new_sessions() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let b = Gateway::start(scratch, "b", &GatewayOptions::default())?;
        let control = Control::start(scratch, "a", &[])?;
        let (code, said) = node(scratch, &control, &["drain", "--timeout", "1s"])?;
        ensure!(code == Some(0) && said.contains("0 were running"), "{said}");
        let session = Session::new()?;
        let from = unix(&scratch.file("from"));
        let error = control.rpc()?.call("session.open", session.at_source(b.peer()?, &from, &json!({})));
        let error = error.err().context("a session was opened at a gateway that drains")?;
        let refused = error.downcast_ref::<Refused>().with_context(|| format!("{error:#}"))?;
        ensure!(refused.data["code"] == "draining", "{refused}");
        Ok(())
    })
}
