//! Round trip and bandwidth of the last minute, drawn in a terminal.

use novacron_control_api::PathSample;

/// Seconds that fit a line.
const COLUMNS: usize = 60;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Two lines of bars, the present on the right.
pub(super) fn of(samples: &[PathSample]) -> String {
    let last = &samples[samples.len().saturating_sub(COLUMNS)..];
    let rtts: Vec<Option<u64>> = last.iter().map(|sample| sample.rtt_ns).collect();
    let rates: Vec<Option<u64>> = last.iter().map(|sample| sample.bandwidth_bits_per_s).collect();
    line("round trip", &rtts, super::time) + &line("bandwidth", &rates, super::rate)
}

/// Bars from 0 to the most; a gap where nothing was measured.
fn line(name: &str, values: &[Option<u64>], say: fn(u64) -> String) -> String {
    let Some(most) = values.iter().flatten().max().copied() else {
        return format!("{name:<10}  nothing yet\n");
    };
    let bar = |value: &Option<u64>| {
        let Some(value) = value else { return ' ' };
        let step = (*value as f64 / most.max(1) as f64 * (BARS.len() - 1) as f64).round() as usize;
        BARS[step.min(BARS.len() - 1)]
    };
    let bars: String = values.iter().map(bar).collect();
    format!("{name:<10}  {bars}  most {}\n", say(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_control_api::Timestamp;

    fn sample(rtt_ns: Option<u64>) -> PathSample {
        PathSample { at: Timestamp::now(), rtt_ns, bandwidth_bits_per_s: None, loss_forward_ppm: None }
    }

    #[test]
    fn bars_rise_with_what_they_show_and_leave_gaps() {
        let samples = [Some(0), Some(10_000_000), None, Some(20_000_000)].map(sample);
        let text = of(&samples);
        assert!(text.contains("▁▅ █  most 20.00 ms"), "{text}");
        assert!(text.contains("bandwidth   nothing yet"), "{text}");
        assert!(of(&[]).contains("nothing yet"));
        let many = vec![sample(Some(5)); 500];
        assert_eq!(of(&many).chars().filter(|letter| *letter == '█').count(), COLUMNS);
    }
}
