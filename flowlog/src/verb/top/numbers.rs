//! Numbers as the screen has them: short enough for a column.

/// A number: whole as long as it has few digits.
pub(super) fn count(number: u64) -> String {
    scaled(number as f64, 10_000_000.0, 1000.0, &["", "k", "M", "G", "T", "P", "E"], || {
        number.to_string()
    })
}

/// Bytes: in powers of 1024.
pub(super) fn bytes(number: u64) -> String {
    scaled(number as f64, 100_000.0, 1024.0, &["", "K", "M", "G", "T", "P", "E"], || {
        number.to_string()
    })
}

/// A number per second.
pub(super) fn rate(number: f64) -> String {
    let whole = || {
        if number > 0.0 && number < 9.95 { format!("{number:.1}") } else { format!("{number:.0}") }
    };
    scaled(number, 10_000_000.0, 1000.0, &["", "k", "M", "G", "T", "P", "E"], whole)
}

/// Bytes per second.
pub(super) fn byte_rate(number: f64) -> String {
    bytes(number.round() as u64)
}

/// Below `small` as it is, else with three digits and a letter.
fn scaled(
    number: f64,
    small: f64,
    base: f64,
    letters: &[&str],
    whole: impl Fn() -> String,
) -> String {
    if number < small {
        return whole();
    }
    let (mut number, mut place) = (number, 0);
    while number >= 999.5 && place + 1 < letters.len() {
        number /= base;
        place += 1;
    }
    let decimals = match number {
        _ if number < 9.995 => 2,
        _ if number < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}{}", letters[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_digits_are_whole_and_more_are_shortened() {
        for (number, text) in [
            (0, "0"),
            (9_999_999, "9999999"),
            (10_000_000, "10.0M"),
            (999_499_999, "999M"),
            (999_500_000, "1.00G"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn bytes_have_powers_of_1024() {
        for (number, text) in
            [(836, "836"), (99_999, "99999"), (100_000, "97.7K"), (5 << 30, "5.00G")]
        {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(byte_rate(835.6), "836");
    }

    #[test]
    fn slow_rates_have_a_decimal() {
        for (number, text) in [(0.0, "0"), (0.5, "0.5"), (9.96, "10"), (10_234.4, "10234")] {
            assert_eq!(rate(number), text);
        }
    }
}
