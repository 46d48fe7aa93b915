//! Durations as people type them: `500ms`, `3s`, `1.5s`, `1m`.

use std::time::Duration;

/// The longest that can be asked for. Beyond it a deadline may no longer fit the clock's arithmetic.
const DURATION_MAX: Duration = Duration::from_hours(24);

/// Reads a number and its unit; a number without one is refused rather than guessed at.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err("a duration is not negative: write 500ms, 3s or 1m".into());
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" => return Err("a duration needs a unit: 500ms, 3s or 1m".into()),
        _ => return Err(format!("\"{unit}\" is no unit of time: write 500ms, 3s or 1m")),
    };
    let number: f64 = number.parse().map_err(|_| "a duration begins with a number: 500ms, 3s or 1m")?;
    let seconds = number * scale;
    if seconds < 0.001 {
        return Err("shorter than a millisecond: write 1ms or more".into());
    }
    if seconds > DURATION_MAX.as_secs_f64() {
        return Err("longer than a day: write 24h or less".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_unit() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("3s"), Ok(Duration::from_secs(3)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("1m"), Ok(Duration::from_mins(1)));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", "3", "s", "-3s", "3 s", "3x", "1.2.3s", "0s", "0.1ms", "999999h", "inf", "1e9s"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("-3s").is_err_and(|why| why.contains("not negative")));
    }
}
