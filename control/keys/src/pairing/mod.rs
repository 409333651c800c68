//! Two sites come to trust each other: the exchange of their authorities, authenticated by a one-use code. Pure: bytes
//! and times are given to it; ADR 0013 says why it is built so.
//!
//! ```mermaid
//! sequenceDiagram
//!   participant A as accept (dials, has typed the code)
//!   participant O as offer (listens, has made the code)
//!   A->>O: 1 nonce
//!   O->>A: 2 nonce
//!   Note over A,O: keys = HKDF-SHA256(code, both nonces), one for each way
//!   A->>O: 3 sealed: A's authorities. The first that opens uses the code up
//!   O->>A: 4 sealed: O's authorities
//!   Note over A,O: both show both fingerprints and ask
//!   A->>O: 5 sealed: yes or no
//!   Note over O: trusts A, if both said yes
//!   O->>A: 6 sealed: yes or no
//!   Note over A: trusts O, if both said yes
//! ```
//!
//! Every seal (AES-256-GCM) covers the digest of all that was said before, so nothing can be left out, repeated,
//! exchanged or sent back to where it came from.

mod code;
mod seal;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use crate::bundle::{Bundle, BundleError};
use crate::limits::PAIRING_TRIES_MAX;

pub use code::{Code, CodeError};
use seal::Keys;

/// What the first two messages begin with: the protocol and its version.
const MAGIC: &[u8; 8] = b"NCPAIR\0\x01";
const HELLO_BYTES: usize = MAGIC.len() + 32;
const YES: &[u8] = b"yes";
const NO: &[u8] = b"no";

/// A pairing that did not come about. Nobody is trusted because of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairingError {
    /// Not our protocol or version.
    #[error("the other side does not speak this version of pairing")]
    Foreign,
    /// A seal does not open.
    #[error("the codes differ, or somebody changed what was sent")]
    Code,
    /// What was said came back.
    #[error("the other side sent back what was sent to it")]
    Reflected,
    /// It came too late.
    #[error("the code is too old: make a new one with 'novactl pair offer'")]
    Expired,
    /// It was used.
    #[error("the code was used: make a new one with 'novactl pair offer'")]
    Used,
    /// Too many wrong ones.
    #[error(
        "{PAIRING_TRIES_MAX} tries with wrong codes: the offer has ended; make a new one with 'novactl pair offer'"
    )]
    Tries,
    /// What the other side showed.
    #[error("what the other side shows is refused: {0}")]
    Bundle(#[from] BundleError),
    /// Both call themselves the same.
    #[error("both sites are called {0}: sites pair with others")]
    SameSite(crate::identity::Site),
    /// A person said no.
    #[error("the other side said no")]
    Refused,
    /// No random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

fn nonce() -> Result<[u8; 32], PairingError> {
    let mut nonce = [0; 32];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| PairingError::Random)?;
    Ok(nonce)
}

fn hello(nonce: &[u8; 32]) -> Vec<u8> {
    [&MAGIC[..], &nonce[..]].concat()
}

fn read_hello(message: &[u8]) -> Result<[u8; 32], PairingError> {
    if message.len() != HELLO_BYTES || !message.starts_with(MAGIC) {
        return Err(PairingError::Foreign);
    }
    message[MAGIC.len()..].try_into().map_err(|_| PairingError::Foreign)
}

fn opened(shown: &[u8], own: &Bundle, now: SystemTime) -> Result<Bundle, PairingError> {
    let bundle = Bundle::from_pem(shown, now)?;
    if bundle.site() == own.site() {
        return Err(PairingError::SameSite(own.site().clone()));
    }
    Ok(bundle)
}

fn verdict(message: &[u8]) -> Result<(), PairingError> {
    if message == YES { Ok(()) } else { Err(PairingError::Refused) }
}

/// The side that made the code. It lives as long as the code does and outlives connections that come to nothing.
#[derive(Debug)]
pub struct Offer {
    code: Code,
    own: Bundle,
    expires: SystemTime,
    tries: u32,
    used: bool,
}

impl Offer {
    /// Offers this site's authorities to whoever has the code, until `expires`.
    pub fn new(code: Code, own: Bundle, expires: SystemTime) -> Self {
        Self { code, own, expires, tries: 0, used: false }
    }

    /// Whether anybody may still try.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, now: SystemTime) -> Result<(), PairingError> {
        match () {
            () if self.used => Err(PairingError::Used),
            () if self.tries >= PAIRING_TRIES_MAX => Err(PairingError::Tries),
            () if now >= self.expires => Err(PairingError::Expired),
            () => Ok(()),
        }
    }

    /// Takes message 1, gives message 2. Whoever has no code learns nothing from it but a random number.
    ///
    /// # Errors
    /// When the offer has ended, or the message is none.
    pub fn greet(&self, message: &[u8], now: SystemTime) -> Result<(Greeted, Vec<u8>), PairingError> {
        self.check(now)?;
        let theirs = read_hello(message)?;
        let answer = hello(&nonce()?);
        if answer == message {
            return Err(PairingError::Reflected);
        }
        let ours = read_hello(&answer)?;
        let mut keys = Keys::derive(&self.code, &theirs, &ours)?;
        keys.said(message);
        keys.said(&answer);
        Ok((Greeted { keys }, answer))
    }
}

/// An offer's connection after message 2.
#[derive(Debug)]
pub struct Greeted {
    keys: Keys,
}

impl Greeted {
    /// Takes message 3, gives message 4. The first message that opens uses the code up, whatever comes of it; one that
    /// does not open counts as a try.
    ///
    /// # Errors
    /// When the code is another, or what is shown is no bundle of another site.
    pub fn prove(
        mut self,
        offer: &mut Offer,
        message: &[u8],
        now: SystemTime,
    ) -> Result<(Offered, Vec<u8>), PairingError> {
        offer.check(now)?;
        let Ok(shown) = self.keys.open_accepting(message) else {
            offer.tries += 1;
            return Err(PairingError::Code);
        };
        offer.used = true;
        let peer = opened(&shown, &offer.own, now)?;
        let answer = self.keys.seal_offering(offer.own.to_pem().as_bytes())?;
        Ok((Offered { keys: self.keys, peer }, answer))
    }
}

/// An offer's connection after message 4.
#[derive(Debug)]
pub struct Offered {
    keys: Keys,
    /// What the other side showed: to be compared by people before it is trusted.
    pub peer: Bundle,
}

impl Offered {
    /// Takes message 5.
    ///
    /// # Errors
    /// When the other side said no.
    pub fn agreed(mut self, message: &[u8]) -> Result<Agreed, PairingError> {
        verdict(&self.keys.open_accepting(message)?)?;
        Ok(Agreed { keys: self.keys, peer: self.peer })
    }
}

/// An offer's connection after message 5: the other side trusts this one if this one says yes.
#[derive(Debug)]
pub struct Agreed {
    keys: Keys,
    /// What the other side showed.
    pub peer: Bundle,
}

impl Agreed {
    /// Gives message 6, when this side has decided.
    ///
    /// # Errors
    /// When it cannot be sealed.
    pub fn conclude(mut self, yes: bool) -> Result<Vec<u8>, PairingError> {
        self.keys.seal_offering(if yes { YES } else { NO })
    }
}

/// The side that was told the code, after message 1.
#[derive(Debug)]
pub struct Accepting {
    code: Code,
    own: Bundle,
    nonce: [u8; 32],
}

impl Accepting {
    /// Begins, and gives message 1.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(code: Code, own: Bundle) -> Result<(Self, Vec<u8>), PairingError> {
        let nonce = nonce()?;
        Ok((Self { code, own, nonce }, hello(&nonce)))
    }

    /// Takes message 2, gives message 3.
    ///
    /// # Errors
    /// When the message is none, or is message 1.
    pub fn show(self, message: &[u8]) -> Result<(Shown, Vec<u8>), PairingError> {
        let theirs = read_hello(message)?;
        if theirs == self.nonce {
            return Err(PairingError::Reflected);
        }
        let mut keys = Keys::derive(&self.code, &self.nonce, &theirs)?;
        keys.said(&hello(&self.nonce));
        keys.said(message);
        let answer = keys.seal_accepting(self.own.to_pem().as_bytes())?;
        Ok((Shown { keys, own: self.own }, answer))
    }
}

/// The accepting side after message 3.
#[derive(Debug)]
pub struct Shown {
    keys: Keys,
    own: Bundle,
}

impl Shown {
    /// Takes message 4.
    ///
    /// # Errors
    /// When the codes differ, or what is shown is no bundle of another site.
    pub fn compare(mut self, message: &[u8], now: SystemTime) -> Result<Compared, PairingError> {
        let shown = self.keys.open_offering(message)?;
        Ok(Compared { peer: opened(&shown, &self.own, now)?, keys: self.keys })
    }
}

/// The accepting side after message 4.
#[derive(Debug)]
pub struct Compared {
    keys: Keys,
    /// What the other side showed: to be compared by people before it is trusted.
    pub peer: Bundle,
}

impl Compared {
    /// Gives message 5, when this side has decided.
    ///
    /// # Errors
    /// When it cannot be sealed.
    pub fn decide(mut self, yes: bool) -> Result<(Decided, Vec<u8>), PairingError> {
        let answer = self.keys.seal_accepting(if yes { YES } else { NO })?;
        Ok((Decided { keys: self.keys, peer: self.peer, yes }, answer))
    }
}

/// The accepting side after message 5.
#[derive(Debug)]
pub struct Decided {
    keys: Keys,
    peer: Bundle,
    yes: bool,
}

impl Decided {
    /// Takes message 6, and gives whom to trust: both sides have said yes.
    ///
    /// # Errors
    /// When one of them said no.
    pub fn concluded(mut self, message: &[u8]) -> Result<Bundle, PairingError> {
        verdict(&self.keys.open_offering(message)?)?;
        if self.yes { Ok(self.peer) } else { Err(PairingError::Refused) }
    }
}
