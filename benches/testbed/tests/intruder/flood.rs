//! Strangers by the thousand: whoever is a peer is let in all the same, and what it opens goes on.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use novacron_testbed::Scratch;
use novacron_testbed::opaque::must_carry;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::papers::Sites;
use crate::tls::{Manner, first_word};
use crate::wire::security;

/// The longest flood.
const FLOOD: Duration = Duration::from_secs(20);
/// Between two strangers.
const PAUSE: Duration = Duration::from_millis(1);
/// Connections that a flood keeps open: more than a gateway has places.
const HELD_MAX: usize = 256;
/// Long enough for what a gateway allows at once to be used up.
const BEFORE: Duration = Duration::from_secs(2);

/// Where strangers come from, and what they say before they wait.
struct Flood {
    from: Ipv4Addr,
    says: Vec<u8>,
}

impl Flood {
    fn dial(&self, to: SocketAddr) -> Result<TcpStream> {
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        bind(&fd, &SocketAddr::from((self.from, 0)))?;
        connect(&fd, &to)?;
        let mut stream = TcpStream::from(fd);
        stream.write_all(&self.says)?;
        Ok(stream)
    }

    /// Floods until `over`; returns how many strangers came.
    fn run(&self, to: SocketAddr, over: &AtomicBool) -> u32 {
        let (began, mut strangers) = (Instant::now(), 0);
        let mut held = VecDeque::new();
        while !over.load(Ordering::Relaxed) && began.elapsed() < FLOOD {
            if let Ok(stream) = self.dial(to) {
                strangers += 1;
                held.push_back(stream);
            }
            if held.len() > HELD_MAX {
                held.pop_front();
            }
            thread::sleep(PAUSE);
        }
        strangers
    }
}

/// A session from site to site beside a flood of its destination's gateway.
fn must_carry_beside(scratch: &Scratch, sites: &Sites, flood: &Flood) -> Result<()> {
    let (a, b) = (&sites.gateway_a, &sites.gateway_b);
    let to: SocketAddr = b.peer()?.strip_prefix("tcp:").context("no address")?.parse()?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let strangers = scope.spawn(|| flood.run(to, &over));
        thread::sleep(BEFORE);
        let outcome = must_carry(scratch, [a, b]);
        over.store(true, Ordering::Relaxed);
        let strangers = strangers.join().map_err(|_| anyhow::anyhow!("the flood's thread failed"))?;
        ensure!(strangers > 500, "only {strangers} strangers: that is no flood");
        outcome
    })?;
    let displaced = security(b)?["refused"]["displaced"].as_u64().unwrap_or(0);
    ensure!(displaced > 100, "{displaced} made room for others: there was room for all");
    Ok(())
}

/// Connections that say nothing, from where the peer is as well.
#[test]
fn a_session_opens_while_strangers_flood() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let sites = Sites::start(scratch)?;
        must_carry_beside(scratch, &sites, &Flood { from: Ipv4Addr::LOCALHOST, says: Vec::new() })
    })
}

/// The first word of a handshake each, ten times as many as a gateway begins, from another address than the peer's: none of the
/// peer's own is turned away.
#[test]
fn a_session_opens_while_first_words_flood_from_another_address() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let sites = Sites::start(scratch)?;
        let paper = sites.a.issue("edge")?;
        let from = Ipv4Addr::new(127, 0, 0, 9);
        let says = first_word(&Manner::of(&paper))?;
        must_carry_beside(scratch, &sites, &Flood { from, says })?;
        let broken = &security(&sites.gateway_a)?["refused"]["broken"];
        ensure!(broken.is_null(), "{broken} of the peer's streams were turned away");
        Ok(())
    })
}
