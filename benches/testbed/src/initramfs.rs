//! The initial RAM file system that holds the guest's `/init`.
//!
//! Format: "newc" of cpio, as the kernel reads it (Documentation/driver-api/early-userspace/buffer-format.rst).

/// `S_IFDIR | 0755`.
const DIRECTORY: u32 = 0o040_755;
/// `S_IFREG | 0755`.
const PROGRAM: u32 = 0o100_755;
/// `S_IFREG | 0644`.
const FILE: u32 = 0o100_644;
/// `S_IFCHR | 0600`.
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Packs `init` as `/init`, with the directories it mounts on and the devices that must be there before it runs:
/// without `/dev/console` the kernel gives process 1 no standard streams, and without `/dev/null` Rust's runtime
/// cannot replace them. `modules` are files for `/modules`: what the guest loads, in the order of their names, before it
/// looks for its disk.
pub fn pack(init: &[u8], modules: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.entry("dev", DIRECTORY, (0, 0), &[]);
    archive.entry("proc", DIRECTORY, (0, 0), &[]);
    archive.entry("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    archive.entry("dev/null", CHARACTER_DEVICE, (1, 3), &[]);
    archive.entry("init", PROGRAM, (0, 0), init);
    archive.entry("modules", DIRECTORY, (0, 0), &[]);
    for (name, module) in modules {
        archive.entry(&format!("modules/{name}"), FILE, (0, 0), module);
    }
    archive.finish()
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        self.entries += 1;
        // A file of 4 GiB has no place in this format; ours have a megabyte or two.
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let name_size = name.len() as u32 + 1;
        let links = 1;
        // inode, mode, uid, gid, links, mtime, size, device of the file, device the file is, length of name, checksum
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(data);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks an archive as the kernel does: (name, mode, data) of each entry.
    fn walk(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let whole = bytes.len();
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |i: usize| {
                let digits = std::str::from_utf8(&bytes[6 + 8 * i..14 + 8 * i]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            let at = |bytes: &[u8], offset: usize| {
                (whole - bytes.len() + offset).next_multiple_of(4) - (whole - bytes.len())
            };
            let data_at = at(bytes, 110 + name_size);
            let data = bytes[data_at..data_at + size].to_vec();
            if name == "TRAILER!!!" {
                return entries;
            }
            bytes = &bytes[at(bytes, data_at + size)..];
            entries.push((name, mode, data));
        }
    }

    #[test]
    fn what_is_packed_can_be_walked() {
        for length in 0..9 {
            let init: Vec<u8> = (0..length).collect();
            let entries = walk(&pack(&init, &[("0-a.ko".into(), vec![7; 3])]));
            let names: Vec<_> = entries.iter().map(|(name, ..)| name.as_str()).collect();
            assert_eq!(
                names,
                ["dev", "proc", "dev/console", "dev/null", "init", "modules", "modules/0-a.ko"]
            );
            assert_eq!(entries[4], ("init".into(), PROGRAM, init));
            assert_eq!(entries[6], ("modules/0-a.ko".into(), FILE, vec![7; 3]));
        }
    }
}
