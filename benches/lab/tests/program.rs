//! The program as people and programs use it, and as it is when it is killed.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use novacron_lab::{Conditions, Lab, Topology, available};

const PROGRAM: &str = env!("CARGO_BIN_EXE_novacron-lab");
/// Ends a test that hangs; no expectation.
const WAIT: Duration = Duration::from_secs(60);

macro_rules! needs_a_lab {
    () => {
        if let Err(missing) = available() {
            eprintln!("skipped: {missing}");
            return;
        }
    };
}

/// A lab that was started as people do, killed when this is dropped.
struct Up {
    child: Child,
    id: String,
}

impl Up {
    fn start(arguments: &[&str], stdin: Option<&str>) -> Self {
        let mut child = Command::new(PROGRAM)
            .arg("up")
            .args(arguments)
            .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        if let Some(text) = stdin {
            child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
        }
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let greeting: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let id = greeting["up"]["id"].as_str().unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self { child, id }
    }

    fn namespaces(&self) -> Vec<String> {
        let start = format!("nclab-{}-", self.id);
        let names = std::fs::read_dir("/run/netns").unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).filter(|name| name.starts_with(&start)).collect()
    }

    fn state(&self) -> PathBuf {
        Path::new("/run/novacron-lab").join(&self.id)
    }

    fn wait(&mut self) -> std::process::ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < WAIT, "the lab still runs");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = novacron_lab::sweep();
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn what_a_killed_lab_left_the_next_one_removes_and_a_living_one_stays() {
    needs_a_lab!();
    let living = Lab::start(&Topology::two_sites(&Conditions::default())).unwrap();
    let mut killed = Up::start(&["two-sites", "--json"], None);
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    // Whoever else starts a lab at this moment removes it as well.
    let next = Lab::start(&Topology::two_sites(&Conditions::default())).unwrap();
    assert_eq!(killed.namespaces(), Vec::<String>::new());
    assert!(!killed.state().exists());
    for lab in [&living, &next] {
        assert!(Path::new("/run/netns").join(lab.site("a").unwrap().namespace()).exists());
        lab.report().unwrap();
    }
}

#[test]
fn a_lab_ends_with_the_program_that_started_it() {
    needs_a_lab!();
    let topology = serde_json::to_string(&Topology::find("slow-site").unwrap()).unwrap() + "\n";
    let mut lab = Up::start(&["--hosted"], Some(&topology));
    assert_eq!(lab.namespaces().len(), 3);
    // The kernel closes it with the program, however that ends.
    lab.child.stdin = None;
    assert!(lab.wait().success());
    assert_eq!(lab.namespaces(), Vec::<String>::new());
    assert!(!lab.state().exists());
}

#[test]
fn a_lab_that_is_told_to_end_leaves_nothing() {
    needs_a_lab!();
    let mut lab = Up::start(&["two-sites", "--json"], None);
    let pid = rustix::process::Pid::from_child(&lab.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(lab.wait().success());
    assert_eq!(lab.namespaces(), Vec::<String>::new());
    assert!(!lab.state().exists());
}

#[test]
fn a_link_is_changed_and_shown_while_it_runs() {
    needs_a_lab!();
    let lab = Up::start(&["two-sites", "--json", "--seed", "7"], None);
    let show = || -> serde_json::Value {
        let output = run(&["show", &lab.id, "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)))
    };
    let back = show()[0]["links"][0]["back"]["conditions"].clone();
    let changed =
        run(&["set", &lab.id, "wan", "--way", "forward", "--delay", "3ms", "--rate", "50", "--cut"]);
    assert!(changed.status.success(), "{}", said(&changed));
    let now = show();
    assert_eq!(now[0]["seed"], 7);
    let forward = &now[0]["links"][0]["forward"]["conditions"];
    assert_eq!(
        (&forward["delay_ms"], &forward["rate_mbit"], &forward["cut"]),
        (&3.0.into(), &50.0.into(), &true.into())
    );
    assert_eq!(now[0]["links"][0]["back"]["conditions"], back, "the other way stays as it was");
    assert!(run(&["set", &lab.id, "wan", "--no-cut"]).status.success());
    assert_eq!(show()[0]["links"][0]["forward"]["conditions"]["delay_ms"], 3.0, "what is not named stays");

    let ping = run(&["exec", &lab.id, "a", "--", "ip", "-brief", "link", "show", "wan"]);
    assert!(ping.status.success() && said(&ping).contains("02:4c:41:42:01:01"), "{}", said(&ping));

    for (arguments, expected) in [
        (vec!["set", &lab.id, "lan", "--cut"], "expected one of wan"),
        (vec!["exec", &lab.id, "z", "--", "true"], "expected one of a, b"),
        (vec!["show", "not-there"], "there is no lab"),
        (vec!["set", &lab.id, "wan", "--loss", "200%"], "0 to 100"),
    ] {
        let refused = run(&arguments);
        assert!(
            !refused.status.success() && said(&refused).contains(expected),
            "{arguments:?}: {}",
            said(&refused)
        );
    }
}

#[test]
fn a_mistake_in_a_topology_is_refused_before_anything_is_made() {
    let folder = std::env::temp_dir().join(format!("novacron-lab-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("wrong.toml");
    let text = "name = 'x'\n[[site]]\nname = 'a'\n[[site]]\nname = 'b'\n[[link]]\nname = 'wan'\nfrom = 'a'\nto = 'b'\nboth = { los = 1 }\n";
    std::fs::write(&file, text).unwrap();
    let output = run(&["up", file.to_str().unwrap()]);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(
        said.contains("wrong.toml:10:") && said.contains("los") && said.contains("expected one of"),
        "{said}"
    );
}

#[test]
fn without_its_rights_it_says_what_is_missing() {
    let output = if available().is_ok() {
        // As root without the two capabilities, which is what an unprivileged user is to the kernel.
        let without =
            ["--bounding-set", "-net_admin,-sys_admin", "--inh-caps", "-net_admin,-sys_admin", "--"];
        Command::new("setpriv").args(without).args([PROGRAM, "up", "two-sites"]).output().unwrap()
    } else {
        run(&["up", "two-sites"])
    };
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("a lab needs what is missing here"), "{}", said(&output));
}
