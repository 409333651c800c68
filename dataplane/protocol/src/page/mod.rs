//! The page codec: a batch of hypervisor stream bytes becomes an index and, per lane, a part; and back.
//!
//! (The specification calls the family of page encodings HDE, hierarchical delta encoding. This is its first
//! layer: zero pages and compressed batches of pages. References to known content and deltas come later; the
//! layout and codec bytes have room for them.)
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
//! Nothing here keeps state from one batch to the next, so one encoder serves any number of connections.

mod assemble;
mod block;
mod encode;
mod lane;
mod ops;
mod part;
mod plan;
pub mod policy;
mod sample;
mod zero;

pub use assemble::{Assembler, IndexError};
pub use block::{BlockError, Codec};
pub use encode::{BatchEncoder, Choice, EncodedBatch, Part, PartEncoder, RawReason, Tally};
pub use lane::{LANE_REGION_BYTES, LaneId, lane_of};
pub use ops::OpError;
pub use part::{Bodies, LaneDecoder, PartError, PartHeader};
pub use plan::BatchPlan;
pub use sample::Kind;
pub use zero::is_zero;

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
