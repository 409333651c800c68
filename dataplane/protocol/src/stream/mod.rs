//! Adaptive Multi-Stream Transport's pure half: what is sent stays until it is acknowledged as verified, what
//! arrives is put back in order by lane, and neither side holds more than it promised.

mod buffers;
mod connection_set;
mod count;
mod credit;
mod job;
mod link;
mod measure;
#[cfg(test)]
mod model;
mod pace;
mod receive;
mod remember;
mod retain;
mod send;
mod sending;
mod sorted;
mod times;

pub use buffers::Buffers;
pub use count::{Seen, StreamCount};
pub use credit::ReceiveMemory;
pub use job::{CodecWorker, Done, Job};
pub use receive::{Inbound, Receipt};
pub use remember::{MemoryBudget, Reservation};
pub use retain::StreamId;
pub use send::{BatchBuffer, CodecTime, INGEST_HEADROOM, Outbound, SentBytes};
