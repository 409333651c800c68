//! A PostgreSQL cluster in a temporary folder: TLS and SCRAM over loopback, a unix socket for orders.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use novacron_store::{PostgresOptions, TlsFiles};
use tempfile::TempDir;

use super::{certificates, free_port, give, is_root, start, wait_until};

const USER: &str = "novacron";
const PASSWORD: &str = "a password of one test run";

/// The newest PostgreSQL that is installed as Debian installs it.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let programs = entry.path().join("bin");
            let version = entry.file_name().to_str()?.parse().ok()?;
            programs.join("initdb").is_file().then_some((version, programs))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, programs)| programs)
}

/// PostgreSQL refuses to run as root; Debian's package makes a user for it.
fn user() -> Option<Result<(u32, u32), String>> {
    if !is_root() {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = passwd.lines().find(|line| line.starts_with("postgres:"));
    let fields: Option<Vec<u32>> =
        line.map(|line| line.split(':').skip(2).take(2).flat_map(str::parse).collect());
    Some(match fields.as_deref() {
        Some([user, group]) => Ok((*user, *group)),
        _ => Err("this is root, and there is no user postgres to run it as".to_owned()),
    })
}

/// A running cluster.
pub(crate) struct Postgres {
    programs: PathBuf,
    user: Option<(u32, u32)>,
    dir: TempDir,
    port: u16,
    server: Mutex<Option<Child>>,
    pub(crate) authority: PathBuf,
    pub(crate) password_file: PathBuf,
    /// Files that the client reads: not the server's folder.
    _client: TempDir,
}

impl Postgres {
    /// Makes and starts a cluster; why not, where it cannot be.
    pub(crate) fn new() -> Result<Self, String> {
        let programs =
            programs().ok_or("PostgreSQL is not installed (benches/install.sh --tests does that)")?;
        let user = user().transpose()?;
        let dir = tempfile::Builder::new().prefix("nova-store-pg").tempdir().unwrap();
        let client = tempfile::tempdir().unwrap();
        give(dir.path(), user);
        let files = certificates::make(dir.path());
        give(&files.key, user);
        let authority = client.path().join("authority.pem");
        std::fs::copy(&files.authority, &authority).unwrap();
        let password_file = client.path().join("password");
        std::fs::write(&password_file, format!("{PASSWORD}\n")).unwrap();
        std::fs::set_permissions(&password_file, PermissionsExt::from_mode(0o600)).unwrap();
        let given = dir.path().join("password");
        std::fs::write(&given, PASSWORD).unwrap();
        give(&given, user);
        let data = dir.path().join("data");
        let made = start(
            "KILL",
            user,
            &[
                programs.join("initdb").as_os_str(),
                "--pgdata".as_ref(),
                data.as_os_str(),
                OsStr::new("--username=novacron"),
                OsStr::new("--auth-local=trust"),
                OsStr::new("--auth-host=scram-sha-256"),
                OsStr::new("--encoding=UTF8"),
                OsStr::new("--locale=C"),
                OsStr::new("--no-sync"),
                OsStr::new("--no-instructions"),
                OsStr::new(&format!("--pwfile={}", given.display())),
            ],
        )
        .wait()
        .unwrap();
        assert!(made.success(), "initdb failed: {made}");
        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
        let postgres = Self {
            programs,
            user,
            dir,
            port: free_port(),
            server: Mutex::new(None),
            authority,
            password_file,
            _client: client,
        };
        postgres.start();
        Ok(postgres)
    }

    /// One for all tests that leave it running.
    pub(crate) fn shared() -> Result<&'static Self, String> {
        static SHARED: OnceLock<Result<Postgres, String>> = OnceLock::new();
        SHARED.get_or_init(Self::new).as_ref().map_err(Clone::clone)
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the server and waits until it takes connections.
    pub(crate) fn start(&self) {
        let setting = |name: &str, value: &str| format!("--{name}={value}");
        let path = |name: &str| self.path().join(name).display().to_string();
        let settings = [
            setting("listen_addresses", "127.0.0.1"),
            setting("port", &self.port.to_string()),
            setting("unix_socket_directories", &self.path().display().to_string()),
            setting("ssl", "on"),
            setting("ssl_cert_file", &path("server.pem")),
            setting("ssl_key_file", &path("server.key")),
            setting("max_connections", "60"),
            setting("shared_buffers", "16MB"),
            setting("fsync", "off"),
            setting("log_min_messages", "fatal"),
        ];
        let program = self.programs.join("postgres");
        let data = self.path().join("data");
        let mut command: Vec<&OsStr> = vec![program.as_os_str(), "-D".as_ref(), data.as_os_str()];
        command.extend(settings.iter().map(OsStr::new));
        // INT is PostgreSQL's fast shutdown.
        *self.server.lock().unwrap() = Some(start("INT", self.user, &command));
        wait_until("PostgreSQL takes connections", || self.order("postgres", "SELECT 1").is_ok());
    }

    /// Kills it as a power cut would: the server and, with it, all that serve connections.
    pub(crate) fn kill(&self) {
        let mut server = self.server.lock().unwrap().take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        // Its children notice, and the next start refuses to begin before the last of them has gone.
        wait_until("PostgreSQL is gone", || {
            let segment = self.path().join("data/postmaster.pid");
            self.order("postgres", "SELECT 1").is_err()
                && (std::fs::remove_file(&segment).is_ok() || !segment.exists())
        });
    }

    /// Runs SQL over the unix socket, as the cluster's owner.
    pub(crate) fn order(&self, database: &str, sql: &str) -> Result<String, String> {
        let output = Command::new(self.programs.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", database, "-c", sql])
            .arg("-h")
            .arg(self.path())
            .args(["-p", &self.port.to_string()])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// A new database's options, over TLS.
    pub(crate) fn database(&self, name: &str) -> PostgresOptions {
        self.order("postgres", &format!("CREATE DATABASE \"{name}\"")).unwrap();
        PostgresOptions {
            password_file: Some(self.password_file.clone()),
            tls: TlsFiles { authorities: Some(self.authority.clone()), certificate: None },
            connections_max: 6,
            ..PostgresOptions::new(format!("postgres://{USER}@localhost:{}/{name}", self.port))
        }
    }

    /// The same by the unix socket.
    pub(crate) fn by_socket(&self, name: &str) -> PostgresOptions {
        PostgresOptions {
            connections_max: 2,
            ..PostgresOptions::new(format!(
                "host={} port={} user={USER} dbname={name}",
                self.path().display(),
                self.port
            ))
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.lock().unwrap().take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
