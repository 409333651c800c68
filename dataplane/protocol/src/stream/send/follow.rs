//! What the mode of the path sets for what is sent.

use super::Outbound;
use crate::mode::Profile;

impl Outbound {
    /// The path has this profile from now on: the next batches are encoded within its bounds, and no more than its window is under
    /// way. What has left is not touched, and nothing leaves again.
    pub fn follow(&mut self, profile: &Profile) {
        self.policy.bound(&profile.codec);
        self.window_bytes_max = profile.window_bytes_max;
    }
}
