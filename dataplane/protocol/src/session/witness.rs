//! Proofs that somebody was told of a session: keyed with its token, each good on one stream (DWCP-12, DWCP-62, DWCP-64).

use super::Ends;
use crate::wire::{Accept, Kind, Open, Reason};
use bytes::Bytes;

/// What a proof says that its sender does.
const OPEN: &str = "dwcp open";
const ACCEPT: &str = "dwcp accept";
const REFUSE: &str = "dwcp refuse";
const FAIL: &str = "dwcp fail";

/// A secret that both callers gave to their gateways. It never crosses the wire: only keyed digests do.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// A token from its bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Token(bytes)
    }
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Who was told of a session: makes its proofs and compares those of others. What is left of a session that has ended, so that
/// its last word can be said again and be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    session: u64,
    epoch: u32,
    token: Token,
}

impl Witness {
    /// Of a session, in one of its epochs.
    pub fn new(session: u64, epoch: u32, token: Token) -> Self {
        Witness { session, epoch, token }
    }

    /// Proof of knowing the token, good for one meaning, session, epoch and stream, and for these terms. The stream is named by who
    /// its two ends are and by what both of them drew for it.
    fn proof(&self, meaning: &str, ends: &Ends, terms: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.token.0);
        hasher.update(meaning.as_bytes());
        hasher.update(&self.session.to_le_bytes());
        hasher.update(&self.epoch.to_le_bytes());
        for identity in [&ends.dialler, &ends.acceptor] {
            hasher.update(&identity.gateway);
            hasher.update(&identity.instance);
        }
        for nonce in &ends.nonces {
            hasher.update(nonce);
        }
        hasher.update(terms);
        hasher.finalize()
    }

    /// An opening on a stream between these ends, with its proof.
    pub(crate) fn prove_open(&self, mut open: Open, ends: &Ends) -> Open {
        open.proof = *self.proof(OPEN, ends, &open.terms()).as_bytes();
        open
    }

    /// The answer to one, with its proof.
    pub(crate) fn prove_accept(&self, mut accept: Accept, ends: &Ends) -> Accept {
        accept.proof = *self.proof(ACCEPT, ends, &accept.terms()).as_bytes();
        accept
    }

    /// Whether who sent this opening, on a stream between these ends, knows the session's token and meant these terms.
    pub fn is_opened_by(&self, open: &Open, ends: &Ends) -> bool {
        // `blake3::Hash` compares in constant time.
        self.proof(OPEN, ends, &open.terms()) == open.proof
    }

    /// The same of an answer.
    pub(crate) fn is_accepted_by(&self, accept: &Accept, ends: &Ends) -> bool {
        self.proof(ACCEPT, ends, &accept.terms()) == accept.proof
    }

    /// The session's last word, [`Kind::Refuse`] or [`Kind::Fail`], for a stream between these ends.
    pub fn last_word(&self, kind: Kind, reason: &Reason, ends: &Ends) -> Bytes {
        let proof = self.proof(last_word(kind), ends, &reason.terms());
        reason.to_frame_with(kind, self.session, self.epoch, proof.as_bytes())
    }

    /// Whether who says this last word, on a stream between these ends, knows the session's token.
    pub(crate) fn is_ended_by(&self, kind: Kind, payload: &[u8], ends: &Ends) -> bool {
        Reason::split(payload)
            .is_some_and(|(terms, proof)| self.proof(last_word(kind), ends, terms) == *proof)
    }
}

fn last_word(kind: Kind) -> &'static str {
    if kind == Kind::Fail { FAIL } else { REFUSE }
}
