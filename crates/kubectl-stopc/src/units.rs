//! Ages, durations and sizes as kubectl prints and reads them.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::{SignedDuration, Timestamp};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// The time between two moments as kubectl prints ages: `45s`, `3m20s`, `5h`, `12d`.
pub fn age(from: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(from).as_secs().max(0);
    let two = |unit: i64, name: &str, below: i64, second: &str| {
        let rest = seconds % unit / below;
        if rest == 0 {
            format!("{}{name}", seconds / unit)
        } else {
            format!("{}{name}{rest}{second}", seconds / unit)
        }
    };
    match seconds {
        _ if seconds < 2 * MINUTE => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two(MINUTE, "m", 1, "s"),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => two(HOUR, "h", MINUTE, "m"),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => two(DAY, "d", HOUR, "h"),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(YEAR, "y", DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// A duration with one decimal below ten seconds: `2.1s`, `42s`, `3m20s`.
pub fn elapsed(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{:.1}s", time.as_secs_f64())
    } else {
        let end = Timestamp::UNIX_EPOCH + time;
        age(Timestamp::UNIX_EPOCH, end)
    }
}

/// A size with a binary prefix: `1.5 GiB`.
pub fn bytes(size: i64) -> String {
    ByteSize::b(u64::try_from(size).unwrap_or_default())
        .display()
        .iec()
        .to_string()
}

/// The same for the column of a table: `1.5GiB`.
pub fn bytes_in_column(size: i64) -> String {
    bytes(size).replace(' ', "")
}

/// Reads a duration in kubectl's format: `30s`, `5m`, `1h30m`. `0` is no time at all.
///
/// # Errors
/// With the allowed formats, if the text is not a duration or is negative.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed: Option<SignedDuration> = text.parse().ok();
    parsed
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "a duration has a unit, as in 30s, 5m or 1h30m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_kubectl() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (10 * MINUTE, "10m"),
            (179 * MINUTE, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 5 * MINUTE, "3h5m"),
            (9 * HOUR + 5 * MINUTE, "9h"),
            (47 * HOUR, "47h"),
            (3 * DAY + 4 * HOUR, "3d4h"),
            (300 * DAY, "300d"),
            (3 * YEAR, "3y"),
            (3 * YEAR + DAY, "3y1d"),
            (9 * YEAR, "9y"),
        ] {
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
            assert_eq!(age(Timestamp::UNIX_EPOCH, now), expected, "{seconds}");
        }
        let before = Timestamp::UNIX_EPOCH - SignedDuration::from_secs(5);
        assert_eq!(age(Timestamp::UNIX_EPOCH, before), "0s", "clocks differ");
    }

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [("0", 0), ("30s", 30), ("5m", 300), ("1h30m", 5400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "5", "five", "-5m", "5x"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
        assert_eq!(elapsed(Duration::from_millis(2140)), "2.1s");
        assert_eq!(elapsed(Duration::from_secs(200)), "3m20s");
    }

    #[test]
    fn sizes_have_binary_prefixes() {
        for (size, expected) in [
            (-1, "0 B"),
            (512, "512 B"),
            (1536, "1.5 KiB"),
            (3 << 30, "3.0 GiB"),
        ] {
            assert_eq!(bytes(size), expected);
        }
        assert_eq!(bytes_in_column(1536), "1.5KiB");
    }
}
