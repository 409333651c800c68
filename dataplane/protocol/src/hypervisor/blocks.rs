//! The RAM blocks that a connection has named.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::span::BlockId;
use crate::limits::{RAM_BLOCK_NAME_BYTES_MAX, RAM_BLOCKS_MAX};

/// Names and numbers of RAM blocks, in the order of their first appearance. Bounded by [`RAM_BLOCKS_MAX`].
#[derive(Debug, Default)]
pub(super) struct BlockTable {
    ids: BTreeMap<Arc<[u8]>, BlockId>,
    names: Vec<Arc<[u8]>>,
}

impl BlockTable {
    /// The number of the block called `name`; none if the name is no possible name or the table is full.
    pub(super) fn intern(&mut self, name: &[u8]) -> Option<BlockId> {
        if name.is_empty() || name.len() > RAM_BLOCK_NAME_BYTES_MAX {
            return None;
        }
        if let Some(id) = self.ids.get(name) {
            return Some(*id);
        }
        if self.names.len() >= RAM_BLOCKS_MAX {
            return None;
        }
        let id = BlockId(u16::try_from(self.names.len()).ok()?);
        let name: Arc<[u8]> = Arc::from(name);
        self.names.push(Arc::clone(&name));
        self.ids.insert(name, id);
        Some(id)
    }

    /// The name of a block.
    pub(super) fn name(&self, id: BlockId) -> Option<&[u8]> {
        self.names.get(usize::from(id.0)).map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_first_appearance_and_are_bounded() {
        let mut table = BlockTable::default();
        assert_eq!(table.intern(b""), None);
        for i in 0..RAM_BLOCKS_MAX {
            assert_eq!(table.intern(i.to_string().as_bytes()), Some(BlockId(i as u16)));
        }
        assert_eq!(table.intern(b"one more"), None);
        assert_eq!(table.intern(b"7"), Some(BlockId(7)));
        assert_eq!(table.name(BlockId(7)), Some(&b"7"[..]));
        assert_eq!(table.name(BlockId(u16::MAX)), None);
    }
}
