//! Numbers, sizes and tables as people read them.

use std::fmt::Write as _;
use std::time::Duration;

pub(crate) use ringfort_types::count;

use crate::json::Object;

/// 52000 → `52,000`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// 5 200 000 → `5.2 MB` (powers of 1000).
pub(crate) fn bytes(count: u64) -> String {
    let mut amount = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if amount < 999.95 {
            return if unit == "B" { format!("{count} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1000.0;
    }
    format!("{amount:.1} TB")
}

/// `1.2 s`, `35 ms`, `2 min 3 s`.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.9995 {
        format!("{:.0} ms", seconds * 1000.0)
    } else if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

/// Things a second, rounded to what the measurement is worth (three digits), grouped.
pub(crate) fn rate(count: u64, time: Duration) -> String {
    let rate = count as f64 / time.as_secs_f64().max(1e-6);
    let mut step = 1.0;
    while rate / step >= 1000.0 {
        step *= 10.0;
    }
    grouped(((rate / step).round() * step) as u64)
}

/// Rows that have been moved, and in what time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) rows: u64,
    /// Of keys and values.
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

impl Transfer {
    /// `exported 7 rows, 52 B in 3 ms (2,300 rows/s)`.
    pub(crate) fn text(self, done: &str) -> String {
        let Transfer { rows, bytes: amount, time } = self;
        let (rows_text, rate) = (count(rows, "row", "rows"), rate(rows, time));
        format!("{done} {rows_text}, {} in {} ({rate} rows/s)", bytes(amount), span(time))
    }

    pub(crate) fn object(self) -> Object {
        let object = Object::new().field("rows", self.rows).field("bytes", self.bytes);
        object.field("seconds", self.time.as_secs_f64())
    }
}

/// `1 key`, `100,000 keys`.
pub(crate) fn grouped_count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// Columns under their heads, two spaces apart; heads that begin with `>` are set flush right.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> =
        heads.iter().map(|head| head.trim_start_matches('>').chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let start = out.len();
        for ((cell, width), head) in cells.zip(&widths).zip(heads) {
            if out.len() > start {
                out.push_str("  ");
            }
            let _ = if head.starts_with('>') {
                write!(out, "{cell:>width$}")
            } else {
                write!(out, "{cell:<width$}")
            };
        }
        out.truncate(start + out[start..].trim_end().len());
        out.push('\n');
    };
    line(&mut heads.iter().map(|head| head.trim_start_matches('>')));
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(52_000), "52,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(5_200_000), "5.2 MB");
        assert_eq!(bytes(999_999), "1.0 MB");
        assert_eq!(rate(63_436, Duration::from_millis(1221)), "52,000");
        assert_eq!(rate(7, Duration::from_secs(2)), "4");
        assert_eq!(span(Duration::from_millis(1234)), "1.2 s");
        assert_eq!(span(Duration::from_millis(34)), "34 ms");
        assert_eq!(span(Duration::from_secs(123)), "2 min 3 s");
        assert_eq!((count(1, "row", "rows"), count(0, "row", "rows")), ("1 row".into(), "0 rows".into()));
        assert_eq!(grouped_count(1, "key", "keys"), "1 key");
        assert_eq!(grouped_count(100_000, "key", "keys"), "100,000 keys");
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["node1".into(), "7".into(), "up".into()],
            vec!["n2".into(), "12".into(), String::new()],
        ];
        assert_eq!(
            table(&["node", ">keys", "state"], &rows),
            "node   keys  state\nnode1     7  up\nn2       12\n"
        );
    }
}
