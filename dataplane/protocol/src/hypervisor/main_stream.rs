//! The main connection: sections and commands, `migration/savevm.c`.

use super::blocks::BlockTable;
use super::bytes::{be16, be32, counted_string};
use super::parser::Step;
use super::progress::{StreamPhase, Tracker};
use super::ram::{RamRecords, Record};
use super::sniff::MAIN_MAGIC;
use crate::limits::{CAPABILITIES_MAX, MACHINE_NAME_BYTES_MAX, PAGE_BYTES};

const EOF: u8 = 0x00;
const SECTION_START: u8 = 0x01;
const SECTION_PART: u8 = 0x02;
const SECTION_END: u8 = 0x03;
const SECTION_FULL: u8 = 0x04;
const SUBSECTION: u8 = 0x05;
const VMDESCRIPTION: u8 = 0x06;
const CONFIGURATION: u8 = 0x07;
const COMMAND: u8 = 0x08;
const SECTION_FOOTER: u8 = 0x7e;

const COMMAND_PACKAGED: u16 = 7;
const COMMAND_SWITCHOVER_START: u16 = 11;
/// One past the last command of QEMU 10 (`MIG_CMD_MAX`), with room for later ones.
const COMMANDS_END: u8 = 32;

const FOOTER_BYTES: usize = 5;
/// The footer, and of what follows it a type and two bytes.
const RESUME_BYTES: usize = FOOTER_BYTES + 3;

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Magic,
    /// A type byte comes next.
    Section,
    /// Inside the configuration section's list of capabilities.
    Capabilities { left: u32 },
    /// Inside a RAM section.
    Ram { last: bool },
    /// Inside a section that says neither what it holds nor how long it is: its footer ends it.
    Foreign { footer: [u8; FOOTER_BYTES] },
}

/// Where the main connection stands.
#[derive(Debug, Default)]
pub(super) struct MainStream {
    at: At,
    ram: RamRecords,
    ram_section: Option<u32>,
    ram_ended: bool,
}

impl MainStream {
    /// Reads the item at the start of `buf`.
    pub(super) fn step(&mut self, buf: &[u8], blocks: &mut BlockTable, tracker: &mut Tracker) -> Step {
        match self.at {
            At::Magic => self.go(At::Section, MAIN_MAGIC.len()),
            At::Section => self.section(buf, tracker),
            At::Capabilities { left } => match counted_string(buf, 0) {
                None => Step::Incomplete,
                Some(name) => self.go(Self::capabilities(left - 1), 1 + name.len()),
            },
            At::Ram { last } => match self.ram.step(buf, blocks, tracker) {
                Record::Step(step) => step,
                Record::End => {
                    self.ram.end_section();
                    if last {
                        self.ram_ended = true;
                        tracker.enter(StreamPhase::Switchover);
                    }
                    self.go(At::Section, 8)
                }
            },
            At::Foreign { footer } => self.foreign(buf, footer),
        }
    }

    fn go(&mut self, at: At, bytes: usize) -> Step {
        self.at = at;
        Step::Opaque(bytes as u64)
    }

    fn capabilities(left: u32) -> At {
        if left == 0 { At::Section } else { At::Capabilities { left } }
    }

    fn section(&mut self, buf: &[u8], tracker: &mut Tracker) -> Step {
        match buf.first() {
            None => Step::Incomplete,
            Some(&EOF) => {
                tracker.enter(StreamPhase::Ended);
                Step::Lost
            }
            Some(&(SECTION_START | SECTION_FULL)) => self.start(buf),
            Some(&(SECTION_PART | SECTION_END)) => self.part(buf, tracker),
            Some(&SECTION_FOOTER) if buf.len() < FOOTER_BYTES => Step::Incomplete,
            Some(&SECTION_FOOTER) => Step::Opaque(FOOTER_BYTES as u64),
            Some(&SUBSECTION) => self.subsection(buf),
            Some(&VMDESCRIPTION) => match be32(buf, 1) {
                None => Step::Incomplete,
                Some(len) => Step::Opaque(5 + u64::from(len)),
            },
            Some(&CONFIGURATION) => Self::configuration(buf, tracker),
            Some(&COMMAND) => Self::command(buf, tracker),
            Some(_) => Step::Lost,
        }
    }

    /// A section's id, name, instance and version; its contents follow.
    fn start(&mut self, buf: &[u8]) -> Step {
        let Some(id) = be32(buf, 1) else { return Step::Incomplete };
        let Some(name) = counted_string(buf, 5) else { return Step::Incomplete };
        let header = 5 + 1 + name.len() + 8;
        if buf.len() < header {
            return Step::Incomplete;
        }
        if name == b"ram" && buf[0] == SECTION_START {
            self.ram_section = Some(id);
            return self.go(At::Ram { last: false }, header);
        }
        self.enter_foreign(id, header)
    }

    fn part(&mut self, buf: &[u8], tracker: &mut Tracker) -> Step {
        let Some(id) = be32(buf, 1) else { return Step::Incomplete };
        if self.ram_section != Some(id) {
            return self.enter_foreign(id, 5);
        }
        tracker.enter(StreamPhase::Precopy);
        let last = buf[0] == SECTION_END;
        if last {
            tracker.stop();
        }
        self.go(At::Ram { last }, 5)
    }

    /// Steps into a section of unknown length: a device's. Before RAM has ended more pages will come, so its
    /// footer is looked for; afterwards nothing is left to find, and the rest is the tail.
    fn enter_foreign(&mut self, id: u32, header: usize) -> Step {
        if self.ram_ended {
            return Step::Lost;
        }
        let id = id.to_be_bytes();
        self.go(At::Foreign { footer: [SECTION_FOOTER, id[0], id[1], id[2], id[3]] }, header)
    }

    /// Looks for the section's footer with the beginning of something known right behind it. A device's data may
    /// imitate that: it then costs compression, nothing else.
    fn foreign(&mut self, buf: &[u8], footer: [u8; FOOTER_BYTES]) -> Step {
        let Some(last_start) = buf.len().checked_sub(RESUME_BYTES) else { return Step::Incomplete };
        let finder = memchr::memmem::Finder::new(&footer);
        let mut from = 0;
        // One byte on at a time: a footer may begin inside bytes that only looked like one.
        while let Some(found) = finder.find(&buf[from..last_start + FOOTER_BYTES]) {
            let at = from + found;
            let next = &buf[at + FOOTER_BYTES..];
            // QEMU numbers sections from 0 up, one a device: 2^16 is far above any machine.
            let resumes = match next[0] {
                SECTION_START | SECTION_PART | SECTION_END | SECTION_FULL => next[1..3] == [0, 0],
                COMMAND => next[1] == 0 && next[2] < COMMANDS_END,
                _ => false,
            };
            if resumes {
                return self.go(At::Section, at + FOOTER_BYTES);
            }
            from = at + 1;
        }
        Step::Opaque(last_start as u64 + 1)
    }

    fn configuration(buf: &[u8], tracker: &mut Tracker) -> Step {
        let Some(len) = be32(buf, 1) else { return Step::Incomplete };
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= MACHINE_NAME_BYTES_MAX) else {
            return Step::Lost;
        };
        let Some(name) = buf.get(5..5 + len) else { return Step::Incomplete };
        tracker.set_machine(name);
        Step::Opaque(5 + len as u64)
    }

    /// A subsection of the configuration: `vmstate_configuration` in `migration/savevm.c`.
    fn subsection(&mut self, buf: &[u8]) -> Step {
        let Some(name) = counted_string(buf, 1) else { return Step::Incomplete };
        let body = 1 + 1 + name.len() + 4;
        match name {
            b"configuration/uuid" => Step::Opaque(body as u64 + 16),
            b"configuration/target-page-bits" => match be32(buf, body) {
                None => Step::Incomplete,
                // With another page size nothing that follows is what this parser knows.
                Some(bits) if 1_u64.checked_shl(bits) != Some(PAGE_BYTES as u64) => Step::Lost,
                Some(_) => Step::Opaque(body as u64 + 4),
            },
            b"configuration/capabilities" => match be32(buf, body) {
                None => Step::Incomplete,
                Some(count) if count > CAPABILITIES_MAX => Step::Lost,
                Some(count) => self.go(Self::capabilities(count), body + 4),
            },
            _ => Step::Lost,
        }
    }

    fn command(buf: &[u8], tracker: &mut Tracker) -> Step {
        let (Some(command), Some(len)) = (be16(buf, 1), be16(buf, 3)) else { return Step::Incomplete };
        let bytes = 5 + u64::from(len);
        match command {
            // A whole stream nested in this one: the device state before postcopy. It holds no RAM.
            COMMAND_PACKAGED if len == 4 => match be32(buf, 5) {
                None => Step::Incomplete,
                Some(size) => {
                    tracker.enter(StreamPhase::Postcopy);
                    Step::Opaque(bytes + u64::from(size))
                }
            },
            COMMAND_SWITCHOVER_START => {
                tracker.stop();
                tracker.enter(StreamPhase::Switchover);
                Step::Opaque(bytes)
            }
            _ => Step::Opaque(bytes),
        }
    }
}
