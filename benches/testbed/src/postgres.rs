//! A PostgreSQL server that belongs to one test: TLS and SCRAM over loopback, in a temporary folder.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::limits::{EXIT_WAIT, SOCKET_WAIT};
use crate::{Process, Scratch, port, wait};

const USER: &str = "novacron";
const PASSWORD: &str = "a password of one test run";

/// A running server. It is killed when this is dropped.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    /// Debian's user for it: PostgreSQL refuses to run as root.
    user: Option<(u32, u32)>,
    folder: PathBuf,
    port: u16,
    process: Option<Process>,
    authority: PathBuf,
    password_file: PathBuf,
}

/// The newest PostgreSQL that is installed as Debian installs it.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let programs = entry.path().join("bin");
            let version = entry.file_name().to_str()?.parse().ok()?;
            programs.join("initdb").is_file().then_some((version, programs))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, programs)| programs)
}

fn debians_user() -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = passwd.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2).map(str::parse);
    Some((fields.next()?.ok()?, fields.next()?.ok()?))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl Postgres {
    /// Makes and starts one; `None` where PostgreSQL is not installed (benches/install.sh --tests does that).
    ///
    /// # Errors
    /// When it cannot be made or does not start.
    pub fn start(scratch: &Scratch) -> Result<Option<Self>> {
        let root = rustix::process::geteuid().is_root();
        let user = if root { debians_user() } else { None };
        let Some(programs) = programs().filter(|_| user.is_some() || !root) else { return Ok(None) };
        let folder = scratch.file("postgres");
        fs::create_dir(&folder).context("making PostgreSQL's folder")?;
        let (authority, password_file) = (scratch.file("postgres-ca.pem"), scratch.file("postgres-password"));
        certificates(&folder, &authority)?;
        fs::write(folder.join("password"), PASSWORD)?;
        fs::write(&password_file, format!("{PASSWORD}\n"))?;
        fs::set_permissions(&password_file, PermissionsExt::from_mode(0o600))?;
        let (port, process) = (port::free()?, None);
        let mut postgres = Self { programs, user, folder, port, process, authority, password_file };
        for path in ["", "server.key", "server.pem", "password"] {
            if let Some((user, group)) = postgres.user {
                chown(postgres.folder.join(path), Some(user), Some(group))
                    .context("giving PostgreSQL its files")?;
            }
        }
        let data = postgres.folder.join("data");
        let arguments = [
            format!("--pgdata={}", text(&data)),
            format!("--username={USER}"),
            "--auth-local=trust".to_owned(),
            "--auth-host=scram-sha-256".to_owned(),
            "--encoding=UTF8".to_owned(),
            "--locale=C".to_owned(),
            "--no-sync".to_owned(),
            "--no-instructions".to_owned(),
            format!("--pwfile={}", text(&postgres.folder.join("password"))),
        ];
        let mut made = Process::start_behind(
            &postgres.becoming(),
            scratch,
            "initdb",
            &postgres.programs.join("initdb"),
            &arguments,
        )?;
        let status = made.wait(SOCKET_WAIT.max(EXIT_WAIT))?;
        ensure!(status.success(), "initdb failed: {}", made.log_tail());
        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), rules)?;
        postgres.again(scratch)?;
        postgres.order("postgres", &format!("CREATE DATABASE {USER}"))?;
        Ok(Some(postgres))
    }

    fn becoming(&self) -> Vec<String> {
        let Some((user, group)) = self.user else { return Vec::new() };
        [
            "setpriv".to_owned(),
            format!("--reuid={user}"),
            format!("--regid={group}"),
            "--clear-groups".to_owned(),
        ]
        .to_vec()
    }

    /// Starts the server, after it was killed, and waits until it takes connections.
    ///
    /// # Errors
    /// When it does not.
    pub fn again(&mut self, scratch: &Scratch) -> Result<()> {
        let setting = |name: &str, value: &str| format!("--{name}={value}");
        let path = |name: &str| text(&self.folder.join(name));
        let arguments = [
            "-D".to_owned(),
            path("data"),
            setting("listen_addresses", "127.0.0.1"),
            setting("port", &self.port.to_string()),
            setting("unix_socket_directories", &text(&self.folder)),
            setting("ssl", "on"),
            setting("ssl_cert_file", &path("server.pem")),
            setting("ssl_key_file", &path("server.key")),
            setting("max_connections", "60"),
            setting("shared_buffers", "16MB"),
            setting("fsync", "off"),
            setting("log_min_messages", "fatal"),
        ];
        let program = self.programs.join("postgres");
        let started = Process::start_behind(&self.becoming(), scratch, "postgres", &program, &arguments)?;
        self.process = Some(started);
        wait::until("PostgreSQL takes connections", SOCKET_WAIT, || {
            Ok(self.order("postgres", "SELECT 1").ok())
        })?;
        Ok(())
    }

    /// Kills it as a power cut would, and waits until whatever served its connections has gone too.
    ///
    /// # Errors
    /// When something of it stays.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
        let lock = self.folder.join("data/postmaster.pid");
        wait::until("the end of PostgreSQL", EXIT_WAIT, || {
            let gone = self.order("postgres", "SELECT 1").is_err();
            Ok((gone && (fs::remove_file(&lock).is_ok() || !lock.exists())).then_some(()))
        })
    }

    /// Runs SQL over the unix socket, as the server's owner.
    ///
    /// # Errors
    /// What the server says.
    pub fn order(&self, database: &str, sql: &str) -> Result<String> {
        let output = Command::new(self.programs.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", database, "-c", sql])
            .arg("-h")
            .arg(&self.folder)
            .args(["-p", &self.port.to_string()])
            .stdin(Stdio::null())
            .output()
            .context("starting psql")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// What a node's configuration says to keep its records there: keys and JSON values.
    pub fn configuration(&self) -> Vec<(&'static str, String)> {
        let quoted = |value: &str| format!("{value:?}");
        vec![
            ("storage.backend", quoted("postgres")),
            ("storage.url", quoted(&format!("postgres://{USER}@localhost:{}/{USER}", self.port))),
            ("storage.password_file", quoted(&text(&self.password_file))),
            ("storage.authorities", quoted(&text(&self.authority))),
            ("storage.max_connections", "6".to_owned()),
        ]
    }
}

/// An authority for one test, and the server's certificate for localhost.
fn certificates(folder: &Path, authority_file: &Path) -> Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    fs::write(authority_file, authority.pem())?;
    fs::write(folder.join("server.pem"), certificate.pem())?;
    let key_file = folder.join("server.key");
    fs::write(&key_file, key.serialize_pem())?;
    fs::set_permissions(&key_file, PermissionsExt::from_mode(0o600)).context("hiding the server's key")
}
