//! testbed
pub mod initramfs;
