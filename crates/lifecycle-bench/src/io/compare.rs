//! The comparison of the times of two containers that took turns.
//!
//! Both times of a round have the same noise of the machine, so each round gives a ratio. The
//! speed is the median of the ratios, with an interval that has the true median with a probability
//! of at least 95 %. The interval needs no assumption about the distribution: its ends are ratios,
//! chosen by their ranks with the binomial distribution (the interval of the sign test).

use crate::measured::quantile;

/// Lowest speed, as a share of the speed of a plain pod.
pub(crate) const GOAL: f64 = 0.97;
/// Probability that the interval does not have the true median.
const RISK: f64 = 0.05;

/// Speed of a StoppableContainer, as a share of that of a plain pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Comparison {
    /// Median of the rounds.
    pub(crate) speed: f64,
    /// Ends of the interval. `None`: too few rounds for one.
    pub(crate) interval: Option<(f64, f64)>,
    /// How much the plain pod's times vary: the difference of their p90 and p10, as a share of
    /// their median.
    pub(crate) spread: f64,
}

/// Whether the goal is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The whole interval is at the goal or above it.
    Met,
    /// The whole interval is below the goal.
    Missed,
    /// The goal is in the interval.
    Noisy,
    /// There is no interval.
    Few,
}

// === impl Comparison ===

impl Comparison {
    /// Compares the times of rounds.
    pub(crate) fn of(plain: &[f64], ours: &[f64]) -> Self {
        let mut speeds: Vec<_> = plain.iter().zip(ours).map(|(plain, ours)| plain / ours).collect();
        speeds.sort_by(f64::total_cmp);
        let interval = lowest_rank(speeds.len()).map(|rank| (speeds[rank], speeds[speeds.len() - 1 - rank]));
        Self {
            speed: quantile(&speeds, 50),
            interval,
            spread: (quantile(plain, 90) - quantile(plain, 10)) / quantile(plain, 50),
        }
    }

    /// The verdict.
    pub(crate) fn verdict(self) -> Verdict {
        match self.interval {
            None => Verdict::Few,
            Some((low, _)) if low >= GOAL => Verdict::Met,
            Some((_, high)) if high < GOAL => Verdict::Missed,
            Some(_) => Verdict::Noisy,
        }
    }
}

/// The rank, counted from 0, of the sample at the low end of the interval. The high end has the
/// same rank from above.
fn lowest_rank(count: usize) -> Option<usize> {
    let count = u32::try_from(count).ok()?;
    // The probability that exactly this many samples are below the true median, and the sum so far.
    let mut exactly = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut at_most = 0.0;
    let mut rank = None;
    for below in 0..count / 2 {
        at_most += exactly;
        if 2.0 * at_most > RISK {
            break;
        }
        rank = Some(below as usize);
        exactly *= f64::from(count - below) / f64::from(below + 1);
    }
    rank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranks_are_those_of_tables_of_the_sign_test() {
        let ranks = [5, 6, 9, 12, 15, 20, 30].map(lowest_rank);
        let expected = [None, Some(0), Some(1), Some(2), Some(3), Some(5), Some(9)];
        assert_eq!(ranks, expected);
        assert_eq!(lowest_rank(0), None);
    }

    fn with(speeds: &[f64]) -> Comparison {
        let ours: Vec<_> = speeds.iter().map(|speed| 100.0 / speed).collect();
        Comparison::of(&vec![100.0; speeds.len()], &ours)
    }

    #[test]
    fn a_verdict_needs_an_interval_on_one_side_of_the_goal() {
        assert_eq!(with(&[1.0; 6]).verdict(), Verdict::Met);
        assert_eq!(with(&[0.9; 6]).verdict(), Verdict::Missed);
        assert_eq!(with(&[0.9, 1.0, 1.0, 1.0, 1.0, 1.0]).verdict(), Verdict::Noisy);
        assert_eq!(with(&[1.0; 5]).verdict(), Verdict::Few);
        assert_eq!(with(&[]).verdict(), Verdict::Few);
        let nine = [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0];
        assert_eq!(with(&nine).verdict(), Verdict::Met, "one round may be disturbed");
    }

    #[test]
    fn noise_that_both_times_of_a_round_have_does_not_count() {
        let plain = [100.0, 200.0, 300.0, 400.0, 500.0, 600.0];
        let compared = Comparison::of(&plain, &plain.map(|time| time * 2.0));
        assert!((compared.speed - 0.5).abs() < 1e-9, "{compared:?}");
        assert_eq!(compared.verdict(), Verdict::Missed);
        assert!((compared.spread - 5.0 / 3.0).abs() < 1e-9, "{compared:?}");
    }
}
