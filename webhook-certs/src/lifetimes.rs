//! How long certificates live, and when their time has come by the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// How far before its making a certificate begins to be valid: clocks of API servers may be behind
/// ours, and ours may be set back.
pub(crate) const BACKDATE: Duration = HOUR;

/// How long authorities and serving certificates live, and when they are renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Life of an authority.
    pub authority: Duration,
    /// Life of a serving certificate.
    pub leaf: Duration,
    /// How long a new authority is published before it signs anything, and how long the old one
    /// stays published afterwards.
    pub overlap: Duration,
    /// How much of the life of either is over when it is renewed, in percent.
    pub renew_after_percent: u32,
}

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Beginning.
    pub not_before: SystemTime,
    /// End.
    pub not_after: SystemTime,
}

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write a number and s, m, h or d, such as 90d")]
pub struct ParseDurationError(String);

/// Reads a duration such as `60s`, `24h` or `365d`.
pub fn parse_duration(text: &str) -> Result<Duration, ParseDurationError> {
    let error = || ParseDurationError(text.to_owned());
    let unit_at = text
        .len()
        .checked_sub(1)
        .filter(|at| text.is_char_boundary(*at))
        .ok_or_else(error)?;
    let (number, unit) = text.split_at(unit_at);
    let unit = match unit {
        "s" => Duration::from_secs(1),
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        _ => return Err(error()),
    };
    let number: u32 = number.parse().map_err(|_| error())?;
    unit.checked_mul(number)
        .filter(|d| !d.is_zero())
        .ok_or_else(error)
}

// === impl Lifetimes ===

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            authority: 365 * DAY,
            leaf: DAY,
            overlap: HOUR,
            renew_after_percent: 66,
        }
    }
}

impl Lifetimes {
    /// Longest life that is accepted: X.509 dates and every clock are fine with it.
    pub const LONGEST: Duration = Duration::from_hours(20 * 365 * 24);

    /// What is left of a serving certificate when it is renewed, at the least: enough for the next
    /// look at the clock, which is ten seconds away at most, and for the signing on a busy machine;
    /// else it would run out before there is another.
    pub const SHORTEST_REST: Duration = Duration::from_secs(20);

    /// Whether a rotation fits into the lives: a serving certificate must not outlive its authority
    /// nor run out before it is replaced, and an authority must be able to wait out the overlap,
    /// before and after the change, between its renewal and its end.
    pub fn is_sound(&self) -> bool {
        (10..=80).contains(&self.renew_after_percent)
            && self.authority <= Self::LONGEST
            && self.rest(self.leaf) >= Self::SHORTEST_REST
            && self.leaf <= self.authority / 3
            && self.overlap <= self.rest(self.authority) / 2
            && !self.overlap.is_zero()
    }

    /// What is left of a life at its renewal.
    fn rest(&self, life: Duration) -> Duration {
        life * 100u32.saturating_sub(self.renew_after_percent) / 100
    }

    /// Whether what is valid from when until when should be replaced: enough of its life is over,
    /// or the clock says that it is not valid at all.
    pub fn is_due(&self, validity: &Validity, now: SystemTime) -> bool {
        let life = validity
            .not_after
            .duration_since(validity.made())
            .unwrap_or_default();
        !validity.contains(now) || now >= validity.made() + life * self.renew_after_percent / 100
    }
}

// === impl Validity ===

impl Validity {
    /// As a certificate says it. Before 1970 nothing is valid anyway.
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or_default());
        let validity = certificate.validity();
        Self {
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        }
    }

    /// A life that begins now.
    pub(crate) fn from(now: SystemTime, lifetime: Duration) -> Self {
        Self {
            not_before: now - BACKDATE,
            not_after: now + lifetime,
        }
    }

    /// Whether `now` is within.
    pub fn contains(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// When this program made it.
    pub fn made(&self) -> SystemTime {
        self.not_before + BACKDATE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("60s", Some(60))]
    #[case("5m", Some(300))]
    #[case("24h", Some(86_400))]
    #[case("365d", Some(31_536_000))]
    #[case("0s", None)]
    #[case("s", None)]
    #[case("", None)]
    #[case("5", None)]
    #[case("-5s", None)]
    #[case("5µ", None)]
    fn durations(#[case] text: &str, #[case] seconds: Option<u64>) {
        assert_eq!(parse_duration(text).ok(), seconds.map(Duration::from_secs));
    }

    #[test]
    fn the_default_is_sound() {
        assert!(Lifetimes::default().is_sound());
    }

    #[test]
    fn f5_a_certificate_that_would_run_out_between_two_looks_at_the_clock_is_not_sound() {
        let lives = |seconds| Lifetimes {
            leaf: Duration::from_secs(seconds),
            ..Lifetimes::default()
        };
        assert!(lives(60).is_sound());
        assert!(!lives(55).is_sound());
    }

    #[test]
    fn a_renewal_that_leaves_no_time_for_the_overlap_is_not_sound() {
        let renewed = |renew_after_percent| Lifetimes {
            renew_after_percent,
            ..Lifetimes::default()
        };
        for percent in [10, 50, 80] {
            assert!(renewed(percent).is_sound(), "{percent}");
        }
        for percent in [0, 9, 81, 100, u32::MAX] {
            assert!(!renewed(percent).is_sound(), "{percent}");
        }
        let long_overlap = Lifetimes {
            authority: 30 * DAY,
            overlap: 4 * DAY,
            ..Lifetimes::default()
        };
        assert!(long_overlap.is_sound());
        let late = Lifetimes {
            renew_after_percent: 80,
            ..long_overlap
        };
        assert!(!late.is_sound());
    }

    #[test]
    fn f7_a_clock_outside_the_life_makes_it_due() {
        let now = SystemTime::UNIX_EPOCH + 1000 * DAY;
        let validity = Validity::from(now, DAY);
        let lifetimes = Lifetimes {
            renew_after_percent: 60,
            ..Lifetimes::default()
        };
        for (at, is_due) in [
            (now, false),
            (now - BACKDATE, false),
            (now + DAY * 59 / 100, false),
            (now + DAY * 60 / 100, true),
            (now + 365 * DAY, true),
            (now - DAY, true),
        ] {
            assert_eq!(lifetimes.is_due(&validity, at), is_due, "{at:?}");
        }
    }
}
