//! Numbers as people read them: three significant digits and a unit.

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit<'a> {
    /// Milliseconds.
    Ms,
    /// Bytes.
    Bytes,
    /// Bytes of memory, which comes in powers of two.
    Memory,
    /// Bytes a second, said in bits as links are.
    BitRate,
    /// Processor seconds for each gigabyte.
    SecondsPerGb,
    /// Anything else, each second.
    PerSecond(&'a str),
}

impl Unit<'_> {
    /// The number in the unit that suits its size.
    fn scaled(self, value: f64) -> (f64, String) {
        let among = |steps: &[(f64, &str)]| {
            let fits = steps.iter().rev().find(|(size, _)| value.abs() >= *size * 0.9995);
            let (size, unit) = fits.or(steps.first()).copied().unwrap_or((1.0, ""));
            (value / size, unit.to_owned())
        };
        match self {
            Unit::Ms => among(&[(1.0, "ms"), (1e3, "s")]),
            Unit::Bytes => among(&[(1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB")]),
            Unit::Memory => {
                const KIB: f64 = 1024.0;
                among(&[(1.0, "B"), (KIB, "KiB"), (KIB * KIB, "MiB"), (KIB * KIB * KIB, "GiB")])
            }
            Unit::BitRate => among(&[(125.0, "kbit/s"), (125e3, "Mbit/s"), (125e6, "Gbit/s")]),
            Unit::SecondsPerGb => (value, "s/GB".to_owned()),
            Unit::PerSecond(what) => (value, format!("{what}/s")),
        }
    }

    /// "4.12 s": three significant digits.
    pub fn text(self, value: f64) -> String {
        let (number, unit) = self.scaled(value);
        if number == 0.0 { format!("0 {unit}") } else { format!("{} {unit}", significant(number)) }
    }

    /// "3.32..4.28 s", and "980 ms..1.02 s" where the units differ.
    pub fn range(self, min: f64, max: f64) -> String {
        let (from, to) = (self.text(min), self.text(max));
        match (from.split_once(' '), to.split_once(' ')) {
            (Some((number, unit)), Some((_, same))) if unit == same => format!("{number}..{to}"),
            _ => format!("{from}..{to}"),
        }
    }

    /// For an axis: "4 s", and a bare "0".
    pub fn tick(self, value: f64) -> String {
        let (number, unit) = self.scaled(value);
        if number == 0.0 {
            return "0".to_owned();
        }
        let text = significant(number);
        let short = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        format!("{short} {unit}")
    }
}

/// Three significant digits, and no more than three after the point; whole numbers above a thousand stay whole.
pub fn significant(number: f64) -> String {
    match number.abs() {
        size if size >= 99.95 => format!("{number:.0}"),
        size if size >= 9.995 => format!("{number:.1}"),
        size if size >= 0.9995 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

/// "1.93x"; what is beyond any measurement says so.
pub fn ratio(value: f64) -> String {
    if value.is_finite() { format!("{}x", significant(value)) } else { "many times".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_the_unit_that_suits() {
        assert_eq!(Unit::Ms.text(4123.4), "4.12 s");
        assert_eq!(Unit::Ms.text(312.4), "312 ms");
        assert_eq!(Unit::Ms.text(0.42), "0.420 ms");
        assert_eq!(Unit::Ms.text(999.7), "1.00 s");
        assert_eq!(Unit::Ms.text(0.0), "0 ms");
        assert_eq!(Unit::Bytes.text(225_400_000.0), "225 MB");
        assert_eq!(Unit::Bytes.text(17.0), "17.0 B");
        assert_eq!(Unit::Memory.text(536_870_912.0), "512 MiB");
        assert_eq!(Unit::BitRate.text(62.5e6), "500 Mbit/s");
        assert_eq!(Unit::BitRate.text(250e6), "2.00 Gbit/s");
        assert_eq!(Unit::SecondsPerGb.text(3.456), "3.46 s/GB");
        assert_eq!(Unit::PerSecond("MB").text(19.84), "19.8 MB/s");
    }

    #[test]
    fn a_range_says_its_unit_once() {
        assert_eq!(Unit::Ms.range(3320.0, 4280.0), "3.32..4.28 s");
        assert_eq!(Unit::Ms.range(980.0, 1020.0), "980 ms..1.02 s");
    }

    #[test]
    fn axes_carry_no_useless_zeros() {
        assert_eq!(Unit::Ms.tick(1500.0), "1.5 s");
        assert_eq!(Unit::Ms.tick(20_000.0), "20 s");
        assert_eq!(Unit::Ms.tick(0.0), "0");
        assert_eq!(Unit::Bytes.tick(100e6), "100 MB");
    }

    #[test]
    fn ratios_beyond_measure_are_words() {
        assert_eq!(ratio(1.934), "1.93x");
        assert_eq!(ratio(f64::INFINITY), "many times");
    }
}
