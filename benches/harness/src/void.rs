//! When a run counts nothing although it completed: nobody wins by starving the guest, or on a lab that was late.

use crate::limits::{LATENESS_P99_MS_MAX, LATENESS_SHARE_MAX, WORK_SHARE_MIN};
use crate::record::Run;

/// Why a completed run is void, in numbers; `None`: it counts.
pub fn reason(run: &Run, rtt_ms: Option<f64>) -> Option<String> {
    if let Some(work) = &run.work
        && let Some(set) = work.set
        && work.achieved < WORK_SHARE_MIN * set
    {
        return Some(format!(
            "the guest did {:.1} of {set:.1} {} a second outside the pause, less than {:.0} %",
            work.achieved,
            work.unit,
            WORK_SHARE_MIN * 100.0
        ));
    }
    let lab = run.lab.as_ref()?;
    let most = LATENESS_P99_MS_MAX.max(rtt_ms.unwrap_or(0.0) * LATENESS_SHARE_MAX);
    (lab.lateness_p99_ms > most).then(|| {
        format!(
            "the lab handed frames on late: p99 {:.2} ms, more than {most:.2} ms; the machine is too busy",
            lab.lateness_p99_ms
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{LabHealth, Work};
    use crate::run::blank;

    fn run(set: Option<f64>, achieved: f64, p99: f64) -> Run {
        let work = Work { set, achieved, unit: "MB".into() };
        let lab = LabHealth { lateness_p99_ms: p99, ..LabHealth::default() };
        Run { work: Some(work), lab: Some(lab), ..blank("x", 0) }
    }

    #[test]
    fn a_starved_guest_and_a_late_lab_make_a_run_void() {
        assert_eq!(reason(&run(Some(20.0), 18.1, 1.9), Some(20.0)), None);
        assert!(reason(&run(Some(20.0), 17.9, 0.0), None).unwrap().contains("17.9 of 20.0 MB"));
        // As much as it can: nothing that it could fall short of.
        assert_eq!(reason(&run(None, 0.1, 0.0), None), None);
        assert!(reason(&run(None, 0.0, 2.1), Some(20.0)).unwrap().contains("2.10 ms"));
        // 5 % of 80 ms.
        assert_eq!(reason(&run(None, 0.0, 3.9), Some(80.0)), None);
        assert!(reason(&run(None, 0.0, 4.1), Some(80.0)).is_some());
        assert_eq!(reason(&blank("x", 0), None), None);
    }
}
