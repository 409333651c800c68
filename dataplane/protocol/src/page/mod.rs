//! The page codec: a batch of hypervisor stream bytes becomes an index and, per lane, a part; and back.
//!
//! (The specification calls the family of page encodings HDE, hierarchical delta encoding: zero pages, pages of one word, pages
//! that are what they were, differences to their last version, pages whose content the far side has, and batches of the rest through lz4 or zstd, with a window that is
//! kept from batch to batch.)
//!
//! ```text
//!  batch  | opaque | word page | word page | word 0 | word 0 | opaque | page page |
//!            |           |                    |          |        |
//!            v           | words: a run       | a run    v        |
//!  index  [ header | ops: LITERAL n, PAGES w n, ZEROS w n, LITERAL n, BODIES o n | literals ]
//!                        |                                        |
//!                        v bodies, each to the lane of its offset v
//!  part   [ layout codec count | which are zero | the others, compressed together ]      one per lane touched
//! ```
//!
//! Exactness rests on nothing that the parser said: the encoder checks every word and zero byte that the index
//! will regenerate and carries what disagrees as literal bytes. The decoder knows no hypervisor at all.
//!
//! A lane may remember ([`EncoderMemory`], [`DecoderMemory`]): the last version of each page and a zstd window. Both sides change
//! it by the lane's parts and nothing else, in the lane's order, so that they agree without talking. Nothing else here keeps
//! anything from one batch to the next.

mod assemble;
mod block;
pub(crate) mod content;
mod delta;
mod encode;
mod lane;
mod memory;
mod ops;
mod part;
mod plan;
pub mod policy;
mod remembered;
mod sample;
mod store;
mod terms;
mod window;

pub use assemble::{Assembler, IndexError};
pub use block::{BlockError, Codec};
pub use content::{
    ContentKey, ContentMemory, ContentStore, Hole, KnownContent, KnownStores, ReceivedContent, Referred,
    SentContent,
};
pub use encode::{BatchEncoder, Choice, EncodedBatch, Part, PartEncoder, RawReason, Tally};
pub use lane::{LANE_REGION_BYTES, LaneId, lane_of};
pub use memory::{DecoderMemory, EncoderMemory, LaneMemory};
pub use novacron_kernels::is_zero;
pub use ops::OpError;
pub use part::{Bodies, LaneDecoder, PartError, PartHeader};
pub use plan::{BatchPlan, PageBody};
pub use sample::Kind;
pub use terms::LaneTerms;

/// How much processor time a batch may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effort {
    /// None: the batch travels as its own bytes.
    Raw,
    /// lz4, fast mode.
    Lz4,
    /// zstd.
    Zstd {
        /// zstd's level; held within [`crate::limits::ZSTD_LEVEL_MIN`] and [`crate::limits::ZSTD_LEVEL_MAX`].
        level: i32,
    },
}
