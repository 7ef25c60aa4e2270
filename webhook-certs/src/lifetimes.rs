//! How long certificates live, and when their time has come by the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// How far before its making a certificate begins to be valid: clocks of API servers may be behind ours, and ours may be
/// set back.
pub(crate) const BACKDATE: Duration = HOUR;

/// How long authorities and serving certificates live. Each is renewed when two thirds of its life are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Life of an authority.
    pub authority: Duration,
    /// Life of a serving certificate.
    pub leaf: Duration,
    /// How long a new authority is published before it signs anything, and how long the old one stays published
    /// afterwards.
    pub overlap: Duration,
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
        }
    }
}

impl Lifetimes {
    /// Longest life that is accepted: X.509 dates and every clock are fine with it.
    pub const LONGEST: Duration = Duration::from_hours(20 * 365 * 24);

    /// Shortest life of a serving certificate that is accepted. Its last third must be long enough for the next look at
    /// the clock, which is ten seconds away at most, and for the signing on a busy machine; else it would run out before
    /// there is another.
    pub const SHORTEST: Duration = MINUTE;

    /// Whether a rotation fits into the lives: a serving certificate must not outlive its authority nor run out before it
    /// is replaced, and an authority must be able to wait out the overlap between its renewal point and its end.
    pub fn is_sound(&self) -> bool {
        self.authority <= Self::LONGEST
            && self.leaf >= Self::SHORTEST
            && self.leaf <= self.authority / 3
            && self.overlap <= self.authority / 6
            && !self.overlap.is_zero()
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

    /// When it was made, by whoever made it here.
    pub fn made(&self) -> SystemTime {
        self.not_before + BACKDATE
    }

    /// Whether it should be replaced: two thirds are over, or the clock says that it is not valid at all.
    pub fn is_due(&self, now: SystemTime) -> bool {
        let life = self.not_after.duration_since(self.made()).unwrap_or_default();
        !self.contains(now) || now >= self.made() + life * 2 / 3
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
        assert!(!lives(59).is_sound());
    }

    #[test]
    fn f7_a_clock_outside_the_life_makes_it_due() {
        let now = SystemTime::UNIX_EPOCH + 1000 * DAY;
        let validity = Validity::from(now, DAY);
        assert!(!validity.is_due(now));
        assert!(!validity.is_due(now - BACKDATE));
        assert!(!validity.is_due(now + DAY / 2));
        assert!(validity.is_due(now + DAY * 2 / 3));
        assert!(validity.is_due(now + 365 * DAY));
        assert!(validity.is_due(now - DAY));
    }
}
