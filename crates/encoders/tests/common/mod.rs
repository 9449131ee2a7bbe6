//! What the tests share.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by several test binaries"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop_encoders::{EncoderDevice, open_encoder};
use backstop_types::{Encoder, EncoderInput};
use serde_json::{Value, json};

pub(crate) fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/encoders")
}

pub(crate) fn golden(name: &str) -> PathBuf {
    goldens().join(name)
}

pub(crate) fn golden_names() -> Vec<String> {
    let entries = fs::read_dir(goldens()).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(crate) fn open(name: &str) -> Arc<dyn Encoder> {
    open_encoder(&golden(name), EncoderDevice::Cpu)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub(crate) fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap().iter();
    list.map(|text| text.as_str().unwrap().to_owned()).collect()
}

pub(crate) fn tokens(inputs: &[EncoderInput]) -> Value {
    json!(inputs.iter().map(|input| &input.tokens).collect::<Vec<_>>())
}

pub(crate) fn numbers(rows: &Value) -> Vec<Vec<f32>> {
    let rows = rows.as_array().unwrap().iter();
    let number = |value: &Value| value.as_f64().unwrap() as f32;
    rows.map(|row| row.as_array().unwrap().iter().map(number).collect())
        .collect()
}

/// The greatest of two rows' numbers.
pub(crate) fn difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    let both = left.iter().zip(right);
    both.map(|(left, right)| (left - right).abs())
        .fold(0.0, f32::max)
}

pub(crate) fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let product = |left: &[f32], right: &[f32]| {
        let both = left.iter().zip(right);
        both.map(|(left, right)| f64::from(*left) * f64::from(*right))
            .sum::<f64>()
    };
    product(left, right) / (product(left, left) * product(right, right)).sqrt()
}

/// A copy of a golden's files that a test may change. It is removed when it is dropped.
pub(crate) struct Copy(PathBuf);

impl Copy {
    pub(crate) fn of(name: &str, label: &str) -> Self {
        let unique = format!("backstop-encoders-{}-{label}", std::process::id());
        let copy = Self(std::env::temp_dir().join(unique));
        let _ignored = fs::remove_dir_all(&copy.0);
        copy_directory(&golden(name), &copy.0);
        copy
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Changes fields of a file; those that become null are removed.
    pub(crate) fn set(&self, file: &str, fields: &Value) {
        let path = self.path(file);
        let mut object = read_json(&path);
        for (name, value) in fields.as_object().unwrap() {
            object[name] = value.clone();
        }
        object
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
        fs::write(path, object.to_string()).unwrap();
    }

    pub(crate) fn open(&self) -> Result<Arc<dyn Encoder>, String> {
        open_encoder(&self.0, EncoderDevice::Cpu).map_err(|error| error.to_string())
    }

    /// Why it cannot be opened.
    pub(crate) fn refusal(&self) -> String {
        match self.open() {
            Ok(_) => panic!("{} was opened", self.0.display()),
            Err(reason) => reason,
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ignored = fs::remove_dir_all(&self.0);
    }
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_directory(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}
