//! How much the two sides of a session remember of it: agreed as one number, shared out by rules that both know.

use crate::limits::{
    MEMORY_PAGE_BYTES, MEMORY_WINDOW_LANE_BYTES_MIN, WINDOW_LOG_MAX, WINDOW_LOG_MIN, WINDOW_TABLES_BYTES,
};

/// What each side keeps for one page lane (DWCP-70).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneTerms {
    /// Pages whose last version is kept.
    pub pages: u32,
    /// The zstd window that is kept from one part to the next, as a power of two; `None`: there is none.
    pub window_log: Option<u32>,
}

impl LaneTerms {
    /// The terms of each of `lanes` lanes where each side may spend `bytes` on all of them; `None`: too little for a page.
    pub fn of(bytes: u64, lanes: u16) -> Option<LaneTerms> {
        let share = bytes / u64::from(lanes.max(1));
        let mut left = share;
        let mut window_log = None;
        if share >= MEMORY_WINDOW_LANE_BYTES_MIN {
            // A quarter of the share, rounded down to a power of two.
            let log = (share / 4).ilog2().clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX);
            left -= window_bytes(log);
            window_log = Some(log);
        }
        let pages = u32::try_from(left / MEMORY_PAGE_BYTES).unwrap_or(u32::MAX);
        (pages > 0).then_some(LaneTerms { pages, window_log })
    }

    /// Most bytes that a side keeps for a lane.
    pub fn bytes_max(&self) -> u64 {
        u64::from(self.pages) * MEMORY_PAGE_BYTES + self.window_log.map_or(0, window_bytes)
    }
}

/// What a window costs a side: itself, the table of long matches, and the codec's other tables at any level.
fn window_bytes(log: u32) -> u64 {
    (1 << log) + (1 << log) / 8 + WINDOW_TABLES_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{LANES_MAX, MEMORY_BYTES_DEFAULT};

    // DWCP-70
    #[test]
    fn what_lanes_keep_stays_within_what_was_agreed() {
        for lanes in [1, 2, 4, 8, 63, LANES_MAX] {
            for bytes in [0, 1, 4096, 300_000, 1 << 20, 40 << 20, MEMORY_BYTES_DEFAULT, 1 << 33, 1 << 40] {
                let Some(terms) = LaneTerms::of(bytes, lanes) else {
                    assert!(bytes / u64::from(lanes) < MEMORY_PAGE_BYTES);
                    continue;
                };
                assert!(terms.pages > 0);
                assert!(terms.bytes_max() * u64::from(lanes) <= bytes, "{bytes} over {lanes}: {terms:?}");
            }
        }
    }

    #[test]
    fn the_default_keeps_a_window_on_the_usual_lanes() {
        let terms = LaneTerms::of(MEMORY_BYTES_DEFAULT, 4).unwrap();
        assert_eq!(terms.window_log, Some(24));
        assert!(terms.pages > 10_000, "{terms:?}");
        assert_eq!(LaneTerms::of(MEMORY_BYTES_DEFAULT, LANES_MAX).unwrap().window_log, None);
    }
}
