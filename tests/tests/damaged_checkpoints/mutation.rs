//! Ways to damage a file of a checkpoint.

use std::path::{Path, PathBuf};

use backstop_tests::Choices;
use serde_json::{Map, Number, Value, json};

/// Damages one file of `directory` and says which.
pub(crate) fn damage_one_file(directory: &Path, choices: &mut Choices) -> PathBuf {
    let files = super::files(directory);
    let is_json = |path: &&PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    };
    let (texts, weights): (Vec<&PathBuf>, Vec<&PathBuf>) = files.iter().partition(is_json);
    let path = if choices.below(2) == 0 && !texts.is_empty() {
        (*choices.one_of(&texts)).clone()
    } else {
        (*choices.one_of(&weights)).clone()
    };
    let bytes = std::fs::read(&path).expect("a file of the checkpoint");
    let damaged = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => damage_json(&bytes, choices),
        Some("gguf") => damage_gguf(bytes, choices),
        _ => damage_weights(&bytes, choices),
    };
    std::fs::write(&path, damaged).expect("the scratch directory is ours");
    path
}

/// Damages a text file, as JSON where it is some.
pub(crate) fn damage_text(path: &Path, choices: &mut Choices) {
    let bytes = std::fs::read(path).expect("a text file");
    let damaged = if path
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        damage_json(&bytes, choices)
    } else {
        damage_bytes(bytes, choices)
    };
    std::fs::write(path, damaged).expect("the scratch directory is ours");
}

fn damage_json(bytes: &[u8], choices: &mut Choices) -> Vec<u8> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(mut value) if choices.below(5) > 0 => {
            for _ in 0..=choices.below(2) {
                damage_value(&mut value, choices);
            }
            value.to_string().into_bytes()
        }
        _ => damage_bytes(bytes.to_vec(), choices),
    }
}

/// The length of the header, the header, or the tensors' bytes.
fn damage_weights(bytes: &[u8], choices: &mut Choices) -> Vec<u8> {
    let (length, rest) = bytes.split_at(8);
    let header_bytes = u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
    let (header, data) = rest.split_at(header_bytes);
    match choices.below(8) {
        0 => {
            let wrong = odd_number(choices).to_le_bytes();
            [wrong.as_slice(), header, data].concat()
        }
        1 => damage_bytes(bytes.to_vec(), choices),
        2 => {
            let mut data = data.to_vec();
            for _ in 0..=choices.below(4) {
                let place = choices.below(data.len());
                data[place] = choices.number() as u8;
            }
            [length, header, &data].concat()
        }
        _ => {
            let mut header: Value = serde_json::from_slice(header).expect("a golden's header");
            damage_header(&mut header, choices);
            let header = header.to_string().into_bytes();
            [
                &(header.len() as u64).to_le_bytes(),
                header.as_slice(),
                data,
            ]
            .concat()
        }
    }
}

/// Counts at the start, what the metadata say, or where and what tensors are.
fn damage_gguf(mut bytes: Vec<u8>, choices: &mut Choices) -> Vec<u8> {
    let places = |text: &str| -> Vec<usize> {
        let windows = bytes.windows(text.len()).enumerate();
        let found = windows.filter(|(_, window)| *window == text.as_bytes());
        found.map(|(place, _)| place + text.len()).collect()
    };
    let tensors = places(".weight");
    let tensor = *choices.one_of(&tensors);
    let key = *choices.one_of(&places("llama."));
    let names_end = *tensors.last().expect("a golden has tensors");
    // Behind a name: the number of extents, two extents, the type, and the offset.
    let (place, length) = match choices.below(9) {
        0 => return damage_bytes(bytes, choices),
        1 => {
            bytes.truncate(choices.below(bytes.len()));
            return bytes;
        }
        2 => (choices.below(names_end), 1),
        3 => (8 + 8 * choices.below(2), 8),
        4 => (tensor, 4),
        5 => (tensor + 4 + 8 * choices.below(2), 8),
        6 => (tensor + 20, 4),
        7 => (tensor + 24, 8),
        _ => (key + choices.below(40), 4),
    };
    let number = odd_number(choices).to_le_bytes();
    bytes[place..place + length].copy_from_slice(&number[..length]);
    bytes
}

fn damage_header(header: &mut Value, choices: &mut Choices) {
    let entries = header.as_object_mut().expect("a header is an object");
    let names: Vec<String> = entries.keys().cloned().collect();
    let name = choices.one_of(&names).clone();
    match choices.below(8) {
        0 => {
            entries.remove(&name);
        }
        1 => {
            let entry = entries.remove(&name).unwrap_or_default();
            entries.insert(format!("{name}.other"), entry);
        }
        2 => {
            let other = entries[choices.one_of(&names)].clone();
            entries.insert(name, other);
        }
        3 => {
            let kinds = [
                "F32", "F16", "BF16", "F64", "I64", "I32", "I8", "U8", "F8_E4M3", "F8_E5M2",
                "BOOL", "F4", "", "f32",
            ];
            set(entries, &name, "dtype", json!(choices.one_of(&kinds)));
        }
        4 => {
            let shape: Vec<u64> = (0..choices.below(5)).map(|_| odd_number(choices)).collect();
            set(entries, &name, "shape", json!(shape));
        }
        5 => {
            let offsets = [odd_number(choices), odd_number(choices)];
            set(entries, &name, "data_offsets", json!(offsets));
        }
        _ => damage_value(header, choices),
    }
}

fn set(entries: &mut Map<String, Value>, name: &str, field: &str, value: Value) {
    if let Some(entry) = entries.get_mut(name).and_then(Value::as_object_mut) {
        entry.insert(field.to_owned(), value);
    }
}

/// Changes one thing somewhere inside `value`.
fn damage_value(value: &mut Value, choices: &mut Choices) {
    let children = match value {
        Value::Array(items) => items.len(),
        Value::Object(entries) => entries.len(),
        _ => 0,
    };
    if children == 0 || choices.below(8) == 0 {
        *value = odd_value(value, choices);
        return;
    }
    let child = choices.below(children);
    match value {
        Value::Array(items) => match choices.below(8) {
            0 => drop(items.remove(child)),
            1 => items.push(items[child].clone()),
            _ => damage_value(&mut items[child], choices),
        },
        Value::Object(entries) => {
            let key = entries
                .keys()
                .nth(child)
                .expect("there are as many keys")
                .clone();
            match choices.below(8) {
                0 => drop(entries.remove(&key)),
                1 => {
                    let moved = entries.remove(&key).unwrap_or_default();
                    entries.insert(key + "_", moved);
                }
                _ => damage_value(entries.get_mut(&key).expect("just found"), choices),
            }
        }
        _ => unreachable!("only containers have children"),
    }
}

fn odd_value(present: &Value, choices: &mut Choices) -> Value {
    if let Some(number) = present.as_u64()
        && choices.below(2) == 0
    {
        let near = [
            number.wrapping_add(1),
            number.saturating_sub(1),
            number.saturating_mul(2),
            number / 2,
        ];
        return json!(choices.one_of(&near));
    }
    match choices.below(12) {
        0 => Value::Null,
        1 => json!(choices.below(2) == 0),
        2 => json!(""),
        3 => json!("x".repeat(choices.below(100_000))),
        4 => json!([]),
        5 => json!({}),
        6 => {
            // At most some megabytes, even if what is repeated has been repeated before.
            let bytes = present.to_string().len().max(100);
            json!(vec![present.clone(); choices.below(3000) * 1000 / bytes])
        }
        7 => Number::from_f64(*choices.one_of(&[0.5, -0.0, 1e308, -1e308, 1e-320])).into(),
        8 => json!(-1),
        _ => json!(odd_number(choices)),
    }
}

/// A number at which something ends.
fn odd_number(choices: &mut Choices) -> u64 {
    let small = choices.below(300) as u64;
    let shift = choices.below(64);
    let power = 1_u64 << shift;
    *choices.one_of(&[
        0,
        1,
        small,
        power,
        power - 1,
        power.wrapping_add(1),
        u64::MAX,
        choices.clone().number(),
    ])
}

fn damage_bytes(mut bytes: Vec<u8>, choices: &mut Choices) -> Vec<u8> {
    let place = choices.below(bytes.len().max(1));
    match choices.below(6) {
        0 => bytes.truncate(place),
        1 => {
            let byte = choices.number() as u8;
            bytes.insert(place, byte);
        }
        2 => drop(bytes.drain(place..(place + 1 + choices.below(16)).min(bytes.len()))),
        3 => bytes.extend((0..choices.below(5000)).map(|index| index as u8)),
        4 => bytes.clear(),
        _ => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << choices.below(8);
            }
        }
    }
    bytes
}
