//! Formats a moment like Python's `strftime`, in UTC and English.

use std::fmt::Write as _;

/// A directive that is not known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("strftime directive `%{0}` is not supported")]
pub(super) struct UnknownDirective(String);

const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const SECONDS_PER_DAY: i64 = 86_400;

/// A moment taken apart.
struct Moment {
    year: i64,
    /// From 1.
    month: i64,
    day: i64,
    /// From 1.
    day_of_year: i64,
    /// From Sunday, which is 0.
    weekday: usize,
    second_of_day: i64,
}

impl Moment {
    fn from_unix_seconds(seconds: i64) -> Self {
        let days = seconds.div_euclid(SECONDS_PER_DAY);
        // Count from 1 March of the year 0, so that leap days stand at the end of a year, in eras
        // of 400 years (Howard Hinnant's `civil_from_days`).
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_march_year =
            day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_march_year + 2) / 153;
        let day = day_of_march_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let before_march = 59 + i64::from(leap);
        let day_of_year = if month > 2 {
            day_of_march_year + before_march + 1
        } else {
            day_of_march_year - 306 + 1
        };
        Self {
            year,
            month,
            day,
            day_of_year,
            weekday: (days + 4).rem_euclid(7) as usize,
            second_of_day: seconds.rem_euclid(SECONDS_PER_DAY),
        }
    }

    fn number(&self, directive: char) -> Option<(i64, usize)> {
        let hour = self.second_of_day / 3600;
        Some(match directive {
            'Y' => (self.year, 4),
            'y' => (self.year.rem_euclid(100), 2),
            'm' => (self.month, 2),
            'd' => (self.day, 2),
            'j' => (self.day_of_year, 3),
            'H' => (hour, 2),
            'I' => ((hour + 11) % 12 + 1, 2),
            'M' => (self.second_of_day / 60 % 60, 2),
            'S' => (self.second_of_day % 60, 2),
            'u' => ((self.weekday as i64 + 6) % 7 + 1, 1),
            'w' => (self.weekday as i64, 1),
            'U' => ((self.day_of_year + 6 - self.weekday as i64) / 7, 2),
            'W' => (
                (self.day_of_year + 6 - (self.weekday as i64 + 6) % 7) / 7,
                2,
            ),
            'C' => (self.year.div_euclid(100), 2),
            'f' => (0, 6),
            _ => return None,
        })
    }

    fn name(&self, directive: char) -> Option<&'static str> {
        let month = MONTHS.get(self.month as usize - 1)?;
        let weekday = WEEKDAYS.get(self.weekday)?;
        Some(match directive {
            'B' => month,
            'b' | 'h' => month.get(..3)?,
            'A' => weekday,
            'a' => weekday.get(..3)?,
            'p' if self.second_of_day < SECONDS_PER_DAY / 2 => "AM",
            'p' => "PM",
            'Z' => "UTC",
            'z' => "+0000",
            '%' => "%",
            _ => return None,
        })
    }
}

/// Formats the moment that is so many seconds after 1970 began. `%-d` and the like leave out the
/// leading zeros.
pub(super) fn strftime(unix_seconds: i64, format: &str) -> Result<String, UnknownDirective> {
    // The year 9999 is as far as Python goes; the bound keeps the arithmetic from overflowing.
    let moment = Moment::from_unix_seconds(unix_seconds.clamp(-62_135_596_800, 253_402_300_799));
    let mut text = String::new();
    append(&moment, format, &mut text)?;
    Ok(text)
}

fn append(moment: &Moment, format: &str, text: &mut String) -> Result<(), UnknownDirective> {
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let mut directive = characters.next();
        let padded = directive != Some('-');
        if !padded {
            directive = characters.next();
        }
        let Some(directive) = directive else {
            return Err(UnknownDirective(String::new()));
        };
        if let Some((number, width)) = moment.number(directive) {
            let width = if padded { width } else { 0 };
            // Writing to a string cannot fail.
            let _ = write!(text, "{number:0width$}");
        } else if let Some(name) = moment.name(directive) {
            text.push_str(name);
        } else {
            match directive {
                'c' => append(moment, "%a %b %e %H:%M:%S %Y", text)?,
                'D' | 'x' => append(moment, "%m/%d/%y", text)?,
                'R' => append(moment, "%H:%M", text)?,
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'F' => append(moment, "%Y-%m-%d", text)?,
                'T' | 'X' => append(moment, "%H:%M:%S", text)?,
                'e' => {
                    let _ = write!(text, "{:2}", moment.day);
                }
                _ => return Err(UnknownDirective(directive.to_string())),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn known_moments() {
        let cases = [
            (0, "%Y-%m-%d %H:%M:%S %j %a", "1970-01-01 00:00:00 001 Thu"),
            (951_782_400, "%d %b %Y, %A %j", "29 Feb 2000, Tuesday 060"),
            (
                1_735_689_599,
                "%F %T %I%p %j %y",
                "2024-12-31 23:59:59 11PM 366 24",
            ),
            (1_762_000_000, "%B %-d, %Y %-H:%M", "November 1, 2025 12:26"),
            (-1, "%Y-%m-%d %u %w %e%%", "1969-12-31 3 3 31%"),
            (1_709_251_200, "%e %j", " 1 061"),
            (
                1_762_000_000,
                "%U %W %c|%x|%X",
                "43 43 Sat Nov  1 12:26:40 2025|11/01/25|12:26:40",
            ),
            (1_735_689_600, "%U %W", "00 00"),
            (i64::MAX, "%Y", "9999"),
            (i64::MIN, "%Y-%m-%d", "0001-01-01"),
        ];
        for (seconds, format, expected) in cases {
            assert_eq!(strftime(seconds, format).unwrap(), expected);
        }
    }

    #[test]
    fn unknown_directives_are_named() {
        assert!(strftime(0, "%Q").unwrap_err().to_string().contains("%Q"));
        assert!(strftime(0, "100%").is_err());
    }
}
