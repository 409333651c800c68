//! How this gateway's streams are protected: what is read at the start and again, what is warned about, what callers are told.

use crate::limits::{EXPIRY_REPEAT, EXPIRY_WARNING};
use crate::shard::{Command, ShardHandle};
use crate::trust::{FolderStamp, Refusals, Trust, read};
use novacron_control_api::{Security, Timestamp};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often the folder is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How this gateway's streams are protected.
pub(crate) struct Protection {
    folder: Option<PathBuf>,
    trust: Option<Arc<Trust>>,
    refusals: Arc<Refusals>,
    /// SIGHUP has come.
    asked: Arc<AtomicBool>,
    state: Mutex<State>,
}

struct State {
    stamp: Option<FolderStamp>,
    looked_at: Instant,
    warned_at: Option<Instant>,
    /// Why the folder's present contents are not used.
    unread: Option<String>,
}

impl Protection {
    /// Reads the identity folder; `None`: nothing is to be encrypted, which is said loudly.
    pub(crate) fn start(folder: Option<PathBuf>) -> Result<Arc<Protection>, String> {
        let asked = Arc::new(AtomicBool::new(false));
        // Whoever sends SIGHUP wants files read again, not the process gone.
        signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&asked))
            .map_err(|error| format!("SIGHUP cannot be received: {error}"))?;
        let stamp = folder.as_deref().map(FolderStamp::of);
        let refusals = Arc::new(Refusals::default());
        let trust = folder.as_deref().map(read).transpose()?;
        let trust = trust.map(|believed| Trust::new(believed, Arc::clone(&refusals)));
        if trust.is_none() {
            tracing::warn!(
                "--insecure-plaintext: nothing is encrypted and any peer is believed; whoever reaches the network can \
                 read the memory of guests"
            );
        }
        let state = State { stamp, looked_at: Instant::now(), warned_at: None, unread: None };
        Ok(Arc::new(Protection { folder, trust, refusals, asked, state: Mutex::new(state) }))
    }

    pub(crate) fn trust(&self) -> Option<Arc<Trust>> {
        self.trust.clone()
    }

    pub(crate) fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.refusals)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the folder again where that is asked for or a file has changed. What cannot be used leaves everything as it was.
    pub(crate) fn look(&self, shards: &[ShardHandle]) {
        let (Some(folder), Some(trust)) = (&self.folder, &self.trust) else { return };
        let asked = self.asked.swap(false, Ordering::Relaxed);
        let mut state = self.state();
        if !asked && state.looked_at.elapsed() < LOOK_INTERVAL {
            return;
        }
        state.looked_at = Instant::now();
        let stamp = Some(FolderStamp::of(folder));
        if asked || stamp != state.stamp {
            state.stamp = stamp;
            match read(folder) {
                Ok(believed) => {
                    tracing::info!(identity = %believed.own, "identity folder read again; sessions go on");
                    state.unread = None;
                    state.warned_at = None;
                    trust.replace(believed);
                    for shard in shards {
                        // A shard that is gone has no streams.
                        let _ = shard.send(Command::TrustChanged);
                    }
                }
                Err(why) => {
                    tracing::error!(%why, "the identity folder cannot be used; everything stays as it was");
                    state.unread = Some(why);
                }
            }
        }
        if state.warned_at.is_none_or(|at| at.elapsed() >= EXPIRY_REPEAT)
            && let Some(warning) = expiry(trust)
        {
            state.warned_at = Some(Instant::now());
            tracing::warn!("{warning}");
        }
    }

    /// For `gateway.info`.
    pub(crate) fn security(&self) -> Security {
        let Some(trust) = &self.trust else {
            return Security {
                encrypted: false,
                identity: None,
                expires_at: None,
                key_exchange: String::new(),
                refused: self.refusals.all(),
                warnings: vec![
                    "--insecure-plaintext: nothing is encrypted and any peer is believed".to_owned(),
                ],
            };
        };
        let (identity, expires_at) = trust.own();
        let unread = self.state().unread.clone();
        let unread = unread.map(|why| format!("the identity folder cannot be used as it is now: {why}"));
        Security {
            encrypted: true,
            identity: Some(identity),
            expires_at: Some(Timestamp::from(expires_at)),
            key_exchange: "X25519MLKEM768".to_owned(),
            refused: self.refusals.all(),
            warnings: expiry(trust).into_iter().chain(unread).collect(),
        }
    }

    /// For the log, in a word or two.
    pub(crate) fn described(&self) -> String {
        match &self.trust {
            Some(trust) => format!("TLS 1.3, X25519MLKEM768, as {}", trust.own().0),
            None => "none: streams are plaintext".to_owned(),
        }
    }
}

/// That the gateway's own certificate ends soon, or has ended.
fn expiry(trust: &Trust) -> Option<String> {
    let (own, expires_at) = trust.own();
    let renew = "issue another with `novactl keys rotate`; sessions go on meanwhile";
    match expires_at.duration_since(SystemTime::now()) {
        Err(_) => Some(format!("the certificate of {own} has expired: no new stream can be opened; {renew}")),
        Ok(left) if left < EXPIRY_WARNING => {
            let hours = left.as_secs() / 3600;
            Some(format!("the certificate of {own} ends in {hours} hours; {renew}"))
        }
        Ok(_) => None,
    }
}
