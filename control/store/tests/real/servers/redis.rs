//! A Redis in a temporary folder, with TLS and a password, over loopback.

use std::ffi::OsStr;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Child;

use novacron_store::{RedisOptions, TlsFiles};
use tempfile::TempDir;

use super::{certificates, free_port, program, start, wait_until};

const PASSWORD: &str = "another password of one test run";

/// A running server.
pub(crate) struct Redis {
    program: std::path::PathBuf,
    dir: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Redis {
    /// Starts one; why not, where it cannot be.
    pub(crate) fn new() -> Result<Self, String> {
        let program = program("redis-server")
            .ok_or("redis-server is not installed (benches/install.sh --tests does that)")?;
        let dir = tempfile::Builder::new().prefix("nova-store-redis").tempdir().unwrap();
        let files = certificates::make(dir.path());
        let port = free_port();
        // In a file, because arguments can be read by every user of this machine.
        let settings = format!(
            "bind 127.0.0.1\nport 0\ntls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n\
             tls-auth-clients no\nrequirepass \"{PASSWORD}\"\nsave \"\"\nappendonly yes\nappendfsync always\ndir {}\n\
             loglevel warning\nlogfile {}\n",
            files.certificate.display(),
            files.key.display(),
            files.authority.display(),
            dir.path().display(),
            dir.path().join("redis.log").display(),
        );
        let owner_only = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            std::fs::set_permissions(dir.path().join(name), PermissionsExt::from_mode(0o600)).unwrap();
        };
        owner_only("redis.conf", &settings);
        owner_only("password", PASSWORD);
        let mut redis = Self { program, dir, port, server: None };
        redis.start();
        Ok(redis)
    }

    /// Starts it, with what it held when it was killed.
    pub(crate) fn start(&mut self) {
        let settings = self.dir.path().join("redis.conf");
        let command: [&OsStr; 2] = [self.program.as_os_str(), settings.as_os_str()];
        self.server = Some(start("KILL", None, &command));
        wait_until("Redis takes connections", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// How to reach it.
    pub(crate) fn options(&self) -> RedisOptions {
        RedisOptions {
            url: format!("rediss://localhost:{}", self.port),
            password_file: Some(self.dir.path().join("password")),
            tls: TlsFiles { authorities: Some(self.dir.path().join("authority.pem")), certificate: None },
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
