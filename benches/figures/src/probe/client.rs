//! Who asks a gateway's responder as a prober does, but one probe after another as fast as a peer may: for a p99 of tens of
//! thousands of round trips, where a gateway's own prober has 3,000 of a minute.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use novacron_lab::Site;
use novacron_protocol::limits::PROBE_COST_NS;
use novacron_protocol::probe::frame::mapped;
use novacron_protocol::probe::key::{Keys, Name, Secret, Side, epoch_at, keys, pair, tag};
use novacron_protocol::probe::packet::{HEADER_BYTES, Header, Kind, MeasuredBy, is_authentic};

/// From one probe to the next at least: a quarter longer than what a peer is granted (`PROBE_COST_NS`), so that none is refused.
const PACE: Duration = Duration::from_nanos(PROBE_COST_NS * 5 / 4);
/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_millis(100);

/// A prober of one responder.
pub(super) struct Client {
    socket: UdpSocket,
    secret: Secret,
    side: Side,
    tag: u64,
    sequence: u64,
}

/// What a turn came to.
pub(super) struct Answers {
    /// Ascending, nanoseconds.
    pub(super) rtts_ns: Vec<u64>,
    pub(super) lost: u64,
    /// Who stamped the last one.
    pub(super) by: MeasuredBy,
}

fn name(address: SocketAddr) -> Name {
    match address.ip() {
        IpAddr::V4(v4) => (mapped(v4.octets()), address.port()),
        IpAddr::V6(v6) => (v6.octets(), address.port()),
    }
}

impl Client {
    /// One at `own` in a site; the responder knows it by this address and what both share.
    pub(super) fn at(site: &Site, own: SocketAddr, responder: SocketAddr, shared: &[u8; 32]) -> Result<Self> {
        let socket = site.within(|| Ok(UdpSocket::bind(own)?)).with_context(|| format!("binding {own}"))?;
        // Whatever else comes there is not seen.
        socket.connect(responder).with_context(|| format!("connecting to {responder}"))?;
        socket.set_read_timeout(Some(ANSWER_WAIT))?;
        let (secret, side) = pair(shared, name(own), name(responder));
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Above all that an earlier one used.
        let sequence = u64::try_from(since.as_micros()).unwrap_or(u64::MAX / 2);
        Ok(Self { socket, tag: tag(&secret, side), secret, side, sequence })
    }

    /// Asks for so long.
    pub(super) fn ask(&mut self, turn: Duration) -> Result<Answers> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let epoch = epoch_at(since.as_secs());
        // The responder takes the epoch that was when the turn began for another hour.
        let keys = keys(&self.secret, self.side, epoch);
        let mut answers = Answers { rtts_ns: Vec::new(), lost: 0, by: MeasuredBy::Nobody };
        let began = Instant::now();
        while began.elapsed() < turn {
            let sent = Instant::now();
            match self.one(epoch, keys)? {
                Some(by) => {
                    answers.rtts_ns.push(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX));
                    answers.by = by;
                }
                None => answers.lost += 1,
            }
            // Sleeping would be for longer than that.
            while sent.elapsed() < PACE {
                std::hint::spin_loop();
            }
        }
        answers.rtts_ns.sort_unstable();
        Ok(answers)
    }

    /// Sends a probe and waits for its answer; `None`: there was none.
    fn one(&mut self, epoch: u32, keys: Keys) -> Result<Option<MeasuredBy>> {
        self.sequence += 1;
        let probe = Header {
            kind: Kind::Probe,
            measured_by: MeasuredBy::Nobody,
            length: HEADER_BYTES as u16,
            tag: self.tag,
            epoch,
            train: 0,
            sequence: self.sequence,
            sent_ns: 0,
            received_ns: 0,
            heard: 0,
        };
        self.socket.send(&probe.write(keys.probe)).context("sending a probe")?;
        let mut datagram = [0; HEADER_BYTES + 1];
        loop {
            let length = match self.socket.recv(&mut datagram) {
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error).context("waiting for an answer"),
            };
            let datagram = datagram.get(..length).unwrap_or_default();
            let answer = Header::read(datagram).filter(|answer| answer.kind == Kind::Answer);
            // One that came too late is an earlier probe's.
            if let Some(answer) = answer.filter(|answer| answer.sequence == self.sequence)
                && is_authentic(keys.answer, datagram)
            {
                return Ok(Some(answer.measured_by));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_keeps_its_pace_is_never_refused() {
        assert!(PACE > Duration::from_nanos(PROBE_COST_NS));
        assert!(ANSWER_WAIT > 100 * PACE);
    }
}
