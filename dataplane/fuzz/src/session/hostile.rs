//! What a network or a peer does that keeps no contract.

use super::world::{CONNECTIONS, SESSION, World, bytes_at, content, frame};
use crate::input::Input;
use crate::wire::repair;
use novacron_protocol::wire::{BatchFields, FrameHeader, Kind, Lane};

/// Longest payload that a script makes up.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

impl World {
    /// Changes a byte of the first frame under way; its header fits again afterwards, so that it is believed.
    pub(super) fn change(&mut self, side: usize, stream: usize, input: &mut Input<'_>) {
        let (at, xor) = (usize::from(input.u16()), input.byte());
        let Some(frame) = self.streams[stream].to[side].front_mut() else { return };
        let mut bytes = frame.to_vec();
        let at = at % bytes.len();
        match xor {
            // Cut short, or longer by something.
            0 => bytes.truncate(at.max(32)),
            0xff => bytes.extend(std::iter::repeat_n(0, at)),
            _ => bytes[at] ^= xor,
        }
        repair(&mut bytes);
        *frame = bytes.into();
    }

    pub(super) fn disorder(&mut self, side: usize, stream: usize, input: &mut Input<'_>) {
        let under_way = &mut self.streams[stream].to[side];
        let Some(first) = under_way.pop_front() else { return };
        match input.byte() % 4 {
            0 => {}
            1 => under_way.push_back(first),
            2 => {
                under_way.push_back(first.clone());
                under_way.push_front(first);
            }
            _ => {
                // On another stream.
                let to = &mut self.streams[(stream + 1) % super::world::STREAMS];
                if to.up[side] {
                    to.to[side].push_back(first);
                }
            }
        }
    }

    /// A frame with a header that is believed and anything behind it.
    pub(super) fn make_up(&mut self, side: usize, stream: usize, input: &mut Input<'_>) {
        const KINDS: [Kind; 15] = [
            Kind::Open,
            Kind::Accept,
            Kind::Refuse,
            Kind::Fail,
            Kind::Progress,
            Kind::ConnectionOpen,
            Kind::Batch,
            Kind::Index,
            Kind::Part,
            Kind::ConnectionEnd,
            Kind::Hello,
            Kind::HelloAccept,
            Kind::HelloRefuse,
            Kind::Want,
            Kind::Repair,
        ];
        let kind = KINDS[input.below(KINDS.len())];
        let lane = input.byte();
        let lane = match lane >> 6 {
            0 => Lane::Page(u16::from(lane & 63)),
            1 | 2 => Lane::Connection(u16::from(lane & 7)),
            _ => Lane::Unordered,
        };
        let sequence = match input.byte() {
            far @ 240.. => u64::MAX >> (far & 15),
            near => u64::from(near),
        };
        let epoch = u32::from(input.byte() == 0xff);
        let len = usize::from(input.byte());
        let mut payload = input.bytes(len).to_vec();
        // The rest is cheap to ask for.
        let more = usize::from(input.byte()) << 8;
        payload.resize((payload.len() + more).min(PAYLOAD_BYTES_MAX), 0x5a);
        if self.streams[stream].up[side] {
            let header = FrameHeader { kind, lane, session: SESSION, epoch, sequence };
            self.deliver(side, stream, frame(header, &payload));
        }
    }

    /// A batch of what the hypervisor there would write next, so that positions and digests fit; ahead of its turn if
    /// the script says so.
    pub(super) fn fit(&mut self, side: usize, stream: usize, input: &mut Input<'_>) {
        let connection = input.below(CONNECTIONS);
        let (ahead, len) = (u64::from(input.byte()), usize::from(input.u16()));
        let position = self.sides[side]
            .session
            .inbound()
            .states()
            .find(|state| usize::from(state.connection) == connection)
            .map_or(0, |state| state.verified);
        // Only the very next one fits: what is verified is at most the content once.
        if !self.streams[stream].up[side] || position as usize + len > content(1 - side, connection).len() {
            return;
        }
        let all = bytes_at(1 - side, connection, 0, position as usize + len);
        let digest = *blake3::hash(&all).as_bytes();
        let fields = BatchFields { position, length: len as u32, digest };
        let header = FrameHeader {
            kind: if len == 0 { Kind::ConnectionEnd } else { Kind::Batch },
            lane: Lane::Connection(connection as u16),
            session: SESSION,
            epoch: 0,
            sequence: ahead,
        };
        let payload = [&fields.to_bytes()[..], &all[position as usize..]].concat();
        self.deliver(side, stream, frame(header, &payload));
    }
}
