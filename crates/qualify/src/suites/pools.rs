//! Fills templates with values: `{city}` in a sentence becomes how one says a city, and in expected arguments the value that
//! a program is given. Every task is made so, and what is right is known by construction.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Number, Value};

use super::matching::{Expected, Member};
use crate::QualifyError;
use crate::qualification::sha256;
use crate::random::Random;

/// Of all pools.
pub(crate) const VALUES: &str = include_str!("../../suites/values.json");
/// To find a value that another place of the same template does not have.
const DRAWS_MAX: usize = 1000;

/// What placeholders stand for, by name.
pub(crate) struct Pools(BTreeMap<String, Pool>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Pool {
    Listed(Vec<Entry>),
    Made(Made),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Said { say: String, value: Value },
    Plain(Value),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Made {
    Integer {
        low: i64,
        high: i64,
    },
    /// Said with commas: 125,000.
    Grouped {
        low: i64,
        high: i64,
        step: i64,
    },
    Decimal {
        low: i64,
        high: i64,
        places: u32,
    },
    /// Said as 14 March 2026, written as 2026-03-14.
    Date {
        first: String,
        days: i64,
    },
    /// Said as 6:30 pm, written as 18:30.
    Time {
        first_hour: i64,
        last_hour: i64,
    },
    /// `#` is a digit, `@` a letter.
    Code(String),
}

/// A value, and how one says it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Drawn {
    pub(crate) say: String,
    pub(crate) value: Value,
}

impl Pools {
    /// Those that this program carries.
    pub(crate) fn load() -> Result<Self, QualifyError> {
        read_json("values.json", VALUES).map(Self)
    }

    fn draw(&self, pool: &str, random: &mut Random) -> Result<Drawn, QualifyError> {
        let known = self.0.get(pool);
        match known.ok_or_else(|| broken(format!("there are no values called {pool:?}")))? {
            Pool::Listed(entries) => Ok(match random.pick(entries) {
                Entry::Said { say, value } => Drawn {
                    say: say.clone(),
                    value: value.clone(),
                },
                Entry::Plain(value) => Drawn {
                    say: plainly(value),
                    value: value.clone(),
                },
            }),
            Pool::Made(made) => make(made, random),
        }
    }
}

/// Reads data that this program carries.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(
    name: &str,
    json: &str,
) -> Result<T, QualifyError> {
    serde_json::from_str(json).map_err(|error| broken(format!("{name}: {error}")))
}

/// What tells these data from changed ones, in settings.
pub(crate) fn digest(data: &[&str]) -> Value {
    sha256(data.concat().as_bytes()).into()
}

fn broken(reason: String) -> QualifyError {
    QualifyError::new(format!("the suites' own data is broken: {reason}"))
}

fn plainly(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn make(made: &Made, random: &mut Random) -> Result<Drawn, QualifyError> {
    Ok(match made {
        Made::Integer { low, high } => {
            let value = random.between(*low, *high);
            Drawn {
                say: value.to_string(),
                value: value.into(),
            }
        }
        Made::Grouped { low, high, step } => {
            let value = random.between(*low, *high) * step;
            Drawn {
                say: format!("{},{:03}", value / 1000, value % 1000),
                value: value.into(),
            }
        }
        Made::Decimal { low, high, places } => {
            let scale = 10_i64.pow(*places);
            let units = random.between(low * scale, high * scale);
            let value = units as f64 / scale as f64;
            let number = Number::from_f64(value).ok_or_else(|| broken("a number".into()))?;
            Drawn {
                say: format!("{value:.*}", *places as usize),
                value: number.into(),
            }
        }
        Made::Date { first, days } => {
            let first = days_of(first).ok_or_else(|| broken(format!("the date {first:?}")))?;
            date(first + random.between(0, days - 1))
        }
        Made::Time {
            first_hour,
            last_hour,
        } => {
            let (hour, minute) = (
                random.between(*first_hour, *last_hour),
                random.between(0, 3) * 15,
            );
            let half = if hour < 12 { "am" } else { "pm" };
            Drawn {
                say: format!("{}:{minute:02} {half}", (hour + 11) % 12 + 1),
                value: format!("{hour:02}:{minute:02}").into(),
            }
        }
        Made::Code(pattern) => {
            let code: String = pattern
                .chars()
                .map(|place| match place {
                    '#' => char::from(b'0' + random.below(10) as u8),
                    '@' => char::from(b'A' + random.below(26) as u8),
                    other => other,
                })
                .collect();
            Drawn {
                say: code.clone(),
                value: code.into(),
            }
        }
    })
}

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

/// Days since 1970-01-01 of `YYYY-MM-DD`.
fn days_of(date: &str) -> Option<i64> {
    let mut parts = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    );
    let before = (1970..year).map(|year| 365 + i64::from(is_leap(year)));
    let months = (1..month).map(|month| days_in(year, month));
    Some(before.sum::<i64>() + months.sum::<i64>() + day - 1)
}

fn date(mut days: i64) -> Drawn {
    let mut year = 1970;
    while days >= 365 + i64::from(is_leap(year)) {
        days -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    while days >= days_in(year, month) {
        days -= days_in(year, month);
        month += 1;
    }
    let day = days + 1;
    Drawn {
        say: format!("{day} {} {year}", MONTHS[month as usize - 1]),
        value: format!("{year}-{month:02}-{day:02}").into(),
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// One task's values: the same placeholder is the same value wherever it stands, and `{city#2}` is another one.
pub(crate) struct Filling<'a> {
    pools: &'a Pools,
    random: Random,
    drawn: BTreeMap<String, Drawn>,
}

impl<'a> Filling<'a> {
    pub(crate) fn new(pools: &'a Pools, random: Random) -> Self {
        Self {
            pools,
            random,
            drawn: BTreeMap::new(),
        }
    }

    /// For what else is drawn for the task.
    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// The value of a placeholder, without its braces.
    pub(crate) fn drawn(&mut self, placeholder: &str) -> Result<Drawn, QualifyError> {
        if let Some(drawn) = self.drawn.get(placeholder) {
            return Ok(drawn.clone());
        }
        let pool = placeholder.split('#').next().unwrap_or_default();
        for _ in 0..DRAWS_MAX {
            let drawn = self.pools.draw(pool, &mut self.random)?;
            if !self.drawn.iter().any(|(name, other)| {
                name.split('#').next() == Some(pool) && other.value == drawn.value
            }) {
                self.drawn.insert(placeholder.to_owned(), drawn.clone());
                return Ok(drawn);
            }
        }
        Err(broken(format!("too few values called {pool:?}")))
    }

    /// A sentence.
    pub(crate) fn text(&mut self, template: &str) -> Result<String, QualifyError> {
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, behind)) = rest.split_once('{') {
            let (placeholder, behind) = behind
                .split_once('}')
                .ok_or_else(|| broken(format!("a brace is open: {template}")))?;
            text += before;
            text += &self.drawn(placeholder)?.say;
            rest = behind;
        }
        Ok(text + rest)
    }

    /// JSON with what stands for values; a text that is nothing but a placeholder becomes its value with its type.
    pub(crate) fn value(&mut self, template: &Value) -> Result<Value, QualifyError> {
        self.expected(template).map(|expected| expected.example())
    }

    /// What is expected. A name that ends in `?` may be left out.
    pub(crate) fn expected(&mut self, template: &Value) -> Result<Expected, QualifyError> {
        Ok(match template {
            Value::String(text) => match whole_placeholder(text) {
                Some(placeholder) => Expected::Any(vec![self.drawn(placeholder)?.value]),
                None => Expected::Any(vec![self.text(text)?.into()]),
            },
            Value::Array(items) => {
                let items = items.iter().map(|item| self.expected(item));
                Expected::List(items.collect::<Result<_, _>>()?)
            }
            Value::Object(members) => Expected::Object(self.members(members)?),
            other => Expected::Any(vec![other.clone()]),
        })
    }

    fn members(
        &mut self,
        members: &Map<String, Value>,
    ) -> Result<BTreeMap<String, Member>, QualifyError> {
        let members = members.iter().map(|(name, value)| {
            let member = Member {
                expected: self.expected(value)?,
                is_optional: name.ends_with('?'),
            };
            Ok((name.trim_end_matches('?').to_owned(), member))
        });
        members.collect()
    }
}

fn whole_placeholder(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    (!inner.contains(['{', '}'])).then_some(inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_placeholder_is_one_value_and_a_number_makes_it_another() {
        let pools = Pools::load().unwrap();
        for seed in 0..200 {
            let mut filling = Filling::new(&pools, Random::new(seed));
            let text = filling.text("{city}, {city}, {city#2}").unwrap();
            let parts: Vec<&str> = text.split(", ").collect();
            assert_eq!(parts[0], parts[1]);
            assert_ne!(parts[0], parts[2]);
            let value = filling
                .value(&json!({"a?": "{city}", "b": ["{minutes}"], "c": "in {city#2}"}))
                .unwrap();
            assert_eq!(value["a"], parts[0]);
            assert!(value["b"][0].is_i64());
            assert_eq!(value["c"], format!("in {}", parts[2]));
        }
    }

    #[test]
    fn dates_times_and_amounts_are_said_otherwise_than_they_are_written() {
        assert_eq!(date(days_of("2026-02-28").unwrap() + 1).value, "2026-03-01");
        let leap = date(days_of("2028-02-28").unwrap() + 1);
        assert_eq!(leap.value, "2028-02-29");
        assert_eq!(leap.say, "29 February 2028");
        assert_eq!(date(days_of("2026-12-31").unwrap() + 1).value, "2027-01-01");
        let pools = Pools::load().unwrap();
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let time = pools.draw("time", &mut random).unwrap();
            let (hour, minute) = time.say[..time.say.len() - 3].split_once(':').unwrap();
            let hour: u32 = hour.parse::<u32>().unwrap() % 12;
            let hour = if time.say.ends_with("pm") {
                hour + 12
            } else {
                hour
            };
            assert_eq!(time.value, format!("{hour:02}:{minute}"));
            let grouped = pools.draw("principal", &mut random).unwrap();
            assert_eq!(grouped.say.replace(',', ""), grouped.value.to_string());
            let money = pools.draw("money", &mut random).unwrap();
            assert_eq!(money.say.parse::<f64>().ok(), money.value.as_f64());
        }
    }

    #[test]
    fn broken_templates_are_errors() {
        let pools = Pools::load().unwrap();
        let mut filling = Filling::new(&pools, Random::new(0));
        for template in ["{nobody knows}", "{city", "a {city} {"] {
            assert!(filling.text(template).is_err(), "{template}");
        }
        let more_than_there_are: Vec<String> =
            (0..20).map(|number| format!("{{side#{number}}}")).collect();
        assert!(filling.text(&more_than_there_are.join(" ")).is_err());
    }
}
