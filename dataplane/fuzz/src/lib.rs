//! What the fuzz targets do with their inputs. It stands apart from the targets so that seeds are written by the code
//! that reads them, and so that a kept input can be run by an ordinary test, without a fuzzer.

pub mod input;
pub mod page;
pub mod session;
pub mod wire;
