//! The responder over whole Ethernet frames, step by step as the kernel's program (`ebpf/bpf/probe.bpf.c`) goes: what one
//! makes of a frame, the other must make too, byte by byte. The fixtures of `ebpf/tests` compare them.

use super::packet::HEADER_BYTES;
use super::responder::{Outcome, Responder};
use crate::limits::PROBE_BYTES_MAX;

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is no probe: it goes on to the network stack, untouched.
    Pass,
    /// A probe that is not answered.
    Drop(Outcome),
    /// This leaves where the frame came in.
    Transmit(Vec<u8>),
}

/// Where the responder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// UDP port.
    pub port: u16,
    /// Address, IPv4 mapped into IPv6; all zero: any.
    pub address: [u8; 16],
}

const UDP: u8 = 17;
const UDP_BYTES: usize = 8;
const IPV6_FRAGMENT: u8 = 44;

/// An IPv4 address as IPv6 writes it (RFC 4291, 2.5.5.2).
pub const fn mapped(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// Where things are in a frame that carries UDP.
struct Parsed {
    /// Offset of the IP header, and whether it is IPv4.
    ip: usize,
    is_v4: bool,
    udp: usize,
    /// Bytes that the IP header says follow it.
    carried: usize,
    fragmented: bool,
    source: [u8; 16],
    destination: [u8; 16],
}

/// What the kernel's program does with a frame that comes in at `now_ns` (DWCP-93 to DWCP-97).
pub fn respond(frame: &[u8], place: Place, responder: &mut Responder, now_ns: u64) -> Verdict {
    let Some(parsed) = parse(frame) else { return Verdict::Pass };
    let Some(udp) = frame.get(parsed.udp..parsed.udp + UDP_BYTES) else { return Verdict::Pass };
    let is_local = place.address == [0; 16] || place.address == parsed.destination;
    if [udp[2], udp[3]] != place.port.to_be_bytes() || !is_local {
        return Verdict::Pass;
    }
    let mut refuse = |outcome| {
        responder.count(outcome);
        Verdict::Drop(outcome)
    };
    let length = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    if parsed.fragmented {
        return refuse(Outcome::Fragmented);
    }
    if length < UDP_BYTES + HEADER_BYTES {
        return refuse(Outcome::Truncated);
    }
    if length > UDP_BYTES + PROBE_BYTES_MAX {
        return refuse(Outcome::Oversize);
    }
    let Some(datagram) = frame.get(parsed.udp + UDP_BYTES..parsed.udp + length) else {
        return refuse(Outcome::Truncated);
    };
    if parsed.carried < length {
        return refuse(Outcome::Truncated);
    }
    match responder.answer(datagram, parsed.source, now_ns) {
        Ok(answer) => Verdict::Transmit(turned(frame, &parsed, &answer)),
        Err(outcome) => Verdict::Drop(outcome),
    }
}

fn parse(frame: &[u8]) -> Option<Parsed> {
    let word = |at: usize| frame.get(at..at + 2).map(|word| u16::from_be_bytes([word[0], word[1]]));
    // Multicast and broadcast are not ours.
    if frame.len() < 14 || frame[0] & 1 != 0 {
        return None;
    }
    let (mut kind, mut ip) = (word(12)?, 14);
    for _ in 0..2 {
        if matches!(kind, 0x8100 | 0x88a8) {
            kind = word(ip + 2)?;
            ip += 4;
        }
    }
    match kind {
        0x0800 => {
            let header = frame.get(ip..ip + 20)?;
            let bytes = usize::from(header[0] & 0xf) * 4;
            if header[0] >> 4 != 4 || bytes < 20 || header[9] != UDP {
                return None;
            }
            let fragment = word(ip + 6)?;
            // A later fragment has no ports; its first one is dropped.
            if fragment & 0x1fff != 0 {
                return None;
            }
            Some(Parsed {
                ip,
                is_v4: true,
                udp: ip + bytes,
                carried: usize::from(word(ip + 2)?).saturating_sub(bytes),
                fragmented: fragment & 0x2000 != 0,
                source: mapped(*header[12..].first_chunk()?),
                destination: mapped(*header[16..].first_chunk()?),
            })
        }
        0x86dd => {
            let header = frame.get(ip..ip + 40)?;
            if header[0] >> 4 != 6 {
                return None;
            }
            let (mut udp, mut fragmented) = (ip + 40, false);
            if header[6] == IPV6_FRAGMENT {
                let fragment = frame.get(udp..udp + 8)?;
                if fragment[0] != UDP || u16::from_be_bytes([fragment[2], fragment[3]]) & 0xfff8 != 0 {
                    return None;
                }
                (udp, fragmented) = (udp + 8, true);
            } else if header[6] != UDP {
                return None;
            }
            Some(Parsed {
                ip,
                is_v4: false,
                udp,
                carried: usize::from(word(ip + 4)?),
                fragmented,
                source: *header[8..].first_chunk()?,
                destination: *header[24..].first_chunk()?,
            })
        }
        _ => None,
    }
}

/// The frame, turned round, with the answer in it (DWCP-94).
fn turned(frame: &[u8], parsed: &Parsed, answer: &[u8; HEADER_BYTES]) -> Vec<u8> {
    let mut out = frame[..parsed.udp + UDP_BYTES].to_vec();
    out[..6].copy_from_slice(&frame[6..12]);
    out[6..12].copy_from_slice(&frame[..6]);
    let length = (UDP_BYTES + HEADER_BYTES) as u16;
    let ip = parsed.ip;
    let addresses = if parsed.is_v4 {
        let total = (parsed.udp - ip) as u16 + length;
        let word = |out: &[u8], at: usize| u16::from_be_bytes([out[at], out[at + 1]]);
        let check = changed(word(&out, ip + 10), word(&out, ip + 2), total);
        let hops = word(&out, ip + 8);
        out[ip + 2..ip + 4].copy_from_slice(&total.to_be_bytes());
        out[ip + 8] = 64;
        let check = changed(check, hops, word(&out, ip + 8));
        out[ip + 10..ip + 12].copy_from_slice(&check.to_be_bytes());
        out[ip + 12..ip + 16].copy_from_slice(&frame[ip + 16..ip + 20]);
        out[ip + 16..ip + 20].copy_from_slice(&frame[ip + 12..ip + 16]);
        ip + 12..ip + 20
    } else {
        out[ip + 4..ip + 6].copy_from_slice(&length.to_be_bytes());
        out[ip + 7] = 64;
        out[ip + 8..ip + 24].copy_from_slice(&parsed.destination);
        out[ip + 24..ip + 40].copy_from_slice(&parsed.source);
        ip + 8..ip + 40
    };
    let udp = parsed.udp;
    out[udp..udp + 2].copy_from_slice(&frame[udp + 2..udp + 4]);
    out[udp + 2..udp + 4].copy_from_slice(&frame[udp..udp + 2]);
    out[udp + 4..udp + 6].copy_from_slice(&length.to_be_bytes());
    out[udp + 6..udp + 8].fill(0);
    out.extend_from_slice(answer);
    let sum = sum(&out[addresses]) + sum(&out[udp..]) + u32::from(length) + u32::from(UDP);
    let check = match !fold(sum) {
        0 => 0xffff,
        check => check,
    };
    out[udp + 6..udp + 8].copy_from_slice(&check.to_be_bytes());
    out
}

/// The sum of 16-bit words, of an even number of bytes.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum()
}

fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// A header checksum after one word changed (RFC 1624).
fn changed(check: u16, from: u16, to: u16) -> u16 {
    !fold(u32::from(!check) + u32::from(!from) + u32::from(to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::packet::MeasuredBy;
    use crate::probe::peers::Peers;
    use proptest::prelude::*;

    const PLACE: Place = Place { port: 7402, address: [0; 16] };

    fn responder() -> Responder {
        Responder::new(Peers::new(1), MeasuredBy::Userspace)
    }

    proptest! {
        /// DWCP-97: any frame has a verdict.
        #[test]
        fn any_frame_has_a_verdict(
            mut frame in proptest::collection::vec(any::<u8>(), 0..1700),
            kind in 0..4usize,
            port in any::<bool>(),
        ) {
            if frame.len() > 64 {
                frame[0] &= 0xfe;
                let at = match kind { 1 => { frame[12..14].copy_from_slice(&[0x81, 0]); 16 } _ => 12 };
                let v6 = kind == 2;
                frame[at..at + 2].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
                frame[at + 2] = if v6 { 0x60 } else { 0x45 };
                frame[at + if v6 { 8 } else { 11 }] = UDP;
                let udp = at + 2 + if v6 { 40 } else { 20 };
                if port && frame.len() > udp + 4 {
                    frame[udp + 2..udp + 4].copy_from_slice(&7402u16.to_be_bytes());
                }
            }
            let verdict = respond(&frame, PLACE, &mut responder(), 5);
            prop_assert!(!matches!(verdict, Verdict::Transmit(_)), "nobody is known");
        }
    }
}
