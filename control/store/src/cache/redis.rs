//! Redis over TLS, or over a unix socket.

use std::path::PathBuf;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{
    AsyncCommands, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisError, TlsCertificates,
};

use crate::error::StoreError;
use crate::limits::{REDIS_ANSWER_TIME_MAX, REDIS_CONNECT_TIME_MAX};
use crate::tls::{TlsFiles, read, read_password};

/// What keys begin with, so that a Redis can have other users too.
const PREFIX: &str = "novacron:";

/// How to reach Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// `rediss://[USER@]HOST[:PORT][/DATABASE]`, or `redis+unix:///PATH`. Over TCP always TLS. A password in it is
    /// refused.
    pub url: String,
    /// A file whose first line is the password; only its owner may read it.
    pub password_file: Option<PathBuf>,
    /// Whom TLS believes, and what it shows.
    pub tls: TlsFiles,
}

/// A connection that is made when it is needed, and again after it broke.
#[derive(Clone)]
pub(super) struct Remote(ConnectionManager);

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}

impl Remote {
    pub(super) fn new(options: &RedisOptions) -> Result<Self, StoreError> {
        let wrong = |what: &str| StoreError::Options { what: format!("the URL of Redis {what}") };
        // The parser's error may quote the URL, and with it a password.
        let mut info = options.url.as_str().into_connection_info().map_err(|_| {
            wrong("cannot be read; expected rediss://HOST:PORT, or redis+unix:///PATH for a unix socket")
        })?;
        if info.redis_settings().password().is_some() {
            return Err(wrong(
                "holds a password, which would be seen wherever it is printed; name a file of it instead",
            ));
        }
        match info.addr() {
            ConnectionAddr::TcpTls { insecure: false, .. } | ConnectionAddr::Unix(_) => {}
            ConnectionAddr::TcpTls { .. } => return Err(wrong("turns verification off")),
            _ => return Err(wrong("is without TLS; only a unix socket goes without, TCP is rediss://")),
        }
        if let Some(path) = &options.password_file {
            let settings = info.redis_settings().clone().set_password(read_password(path)?.as_str());
            info = info.set_redis_settings(settings);
        }
        let client_tls = match &options.tls.certificate {
            Some((certificate, key)) => Some(ClientTlsConfig {
                client_cert: read(certificate)?.to_vec(),
                client_key: read(key)?.to_vec(),
            }),
            None => None,
        };
        let root_cert = match &options.tls.authorities {
            Some(path) => Some(read(path)?.to_vec()),
            None => None,
        };
        let unusable = |error: RedisError| StoreError::Options { what: format!("Redis: {error}") };
        let client =
            Client::build_with_tls(info, TlsCertificates { client_tls, root_cert }).map_err(unusable)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(REDIS_CONNECT_TIME_MAX))
            .set_response_timeout(Some(REDIS_ANSWER_TIME_MAX))
            // When to try again is decided by whoever degrades.
            .set_number_of_retries(0);
        ConnectionManager::new_lazy_with_config(client, config).map(Self).map_err(unusable)
    }

    pub(super) async fn ping(&self) -> Result<(), RedisError> {
        self.0.clone().ping().await
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, RedisError> {
        self.0.clone().get(format!("{PREFIX}{key}")).await
    }

    pub(super) async fn put(&self, key: &str, value: &[u8], life: Duration) -> Result<(), RedisError> {
        let life_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1);
        self.0.clone().pset_ex(format!("{PREFIX}{key}"), value, life_ms).await
    }

    pub(super) async fn remove(&self, keys: Vec<String>) -> Result<(), RedisError> {
        if keys.is_empty() {
            return Ok(());
        }
        let keys: Vec<String> = keys.into_iter().map(|key| format!("{PREFIX}{key}")).collect();
        self.0.clone().unlink(keys).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        let options = RedisOptions { url: url.to_owned(), password_file: None, tls: TlsFiles::default() };
        Remote::new(&options).unwrap_err().to_string()
    }

    #[test]
    fn only_unix_sockets_go_without_tls_and_passwords_stay_out() {
        assert!(refused("redis://cache:6379").contains("without TLS"));
        assert!(refused("rediss://cache:6379/#insecure").contains("verification off"));
        for url in ["rediss://:hunter2@cache:6379", "rediss://me:hunter2@cache:port"] {
            let text = refused(url);
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
