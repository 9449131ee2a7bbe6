//! Weight files with and without an index, and indices that do not fit.

use safetensors::Dtype;
use serde_json::json;

use crate::test_support::{Directory, assert_mentions, floats, zeros};
use crate::{ElementType, ExpectedTensor, census};

fn index(directory: &Directory, weight_map: serde_json::Value) {
    let index = json!({"metadata": {"total_size": 1}, "weight_map": weight_map});
    directory.write("model.safetensors.index.json", index.to_string());
}

#[test]
fn shards_are_joined_by_the_index() {
    let directory = Directory::with_config();
    directory.write_tensors("one.safetensors", &[floats("a", &[1.0])]);
    directory.write_tensors(
        "two.safetensors",
        &[floats("b", &[2.0]), floats("c", &[3.0])],
    );
    index(
        &directory,
        json!({"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}),
    );
    let checkpoint = directory.open().unwrap();
    assert_eq!(checkpoint.file_count(), 2);
    assert_eq!(checkpoint.read("a").unwrap(), 1.0_f32.to_le_bytes());
    assert_eq!(checkpoint.read("c").unwrap(), 3.0_f32.to_le_bytes());
}

#[test]
fn a_bad_index_is_refused() {
    let directory = Directory::with_config();
    directory.write("model.safetensors.index.json", "{}");
    assert_mentions(&directory.open_error(), &["no weight_map"]);
    index(&directory, json!({}));
    assert_mentions(&directory.open_error(), &["weight_map is empty"]);
    index(&directory, json!({"a": 3}));
    assert_mentions(&directory.open_error(), &["\"a\" has no file name"]);
    for name in ["../secret", "/etc/passwd", "x/y", "..", ""] {
        index(&directory, json!({ "a": name }));
        assert_mentions(
            &directory.open_error(),
            &["is not the name of a file beside the index"],
        );
    }
    directory.write_tensors("one.safetensors", &[floats("a", &[1.0])]);
    directory.write_tensors("model.safetensors", &[floats("a", &[1.0])]);
    index(&directory, json!({"a": "one.safetensors"}));
    assert_mentions(
        &directory.open_error(),
        &[
            "model.safetensors is present but the index",
            "remove either",
        ],
    );
}

/// Tensors that a model needs.
fn needs(names: &[&str]) -> Vec<ExpectedTensor> {
    let names = names.iter();
    let expected = names.map(|name| ExpectedTensor {
        name: (*name).to_owned(),
        shape: vec![1],
        allowed: &[ElementType::F32],
        required: true,
    });
    expected.collect()
}

#[test]
fn an_index_of_files_of_which_none_is_there_is_refused() {
    let directory = Directory::with_config();
    index(
        &directory,
        json!({"a": "one.safetensors", "b": "two.safetensors"}),
    );
    let parts = [
        "one.safetensors, which",
        "two.safetensors, which",
        "missing",
    ];
    assert_mentions(&directory.open_error(), &parts);
}

#[test]
fn a_file_that_is_absent_matters_only_if_the_model_reads_what_it_should_hold() {
    let directory = Directory::with_config();
    directory.write_tensors("one.safetensors", &[floats("a", &[1.0])]);
    index(
        &directory,
        json!({"a": "one.safetensors", "b.weight_packed": "two.safetensors", "c": "two.safetensors", "d": "one.safetensors"}),
    );
    let checkpoint = directory.open().unwrap();
    census(&checkpoint, &needs(&["a"])).unwrap();
    let told = checkpoint.index_differences().unwrap();
    assert_mentions(
        &told,
        &[
            "files that are absent: 1 (two.safetensors)",
            "tensors that are in no file: 3",
        ],
    );
    let error = census(&checkpoint, &needs(&["a", "b.weight", "c", "d", "e"])).unwrap_err();
    assert_mentions(
        &error.to_string(),
        &[
            "4 missing: b.weight (two.safetensors, where model.safetensors.index.json has it, is absent)",
            "c (two.safetensors, where",
            "d (one.safetensors, where model.safetensors.index.json has it, lacks it)",
            "; e\n",
        ],
    );
}

#[test]
fn a_single_file_counts_where_the_index_is_of_files_that_are_gone() {
    let directory = Directory::with_config();
    directory.write_tensors("model.safetensors", &[floats("a", &[1.0])]);
    index(
        &directory,
        json!({"a": "one.safetensors", "b": "two.safetensors"}),
    );
    let checkpoint = directory.open().unwrap();
    assert_eq!(checkpoint.file_count(), 1);
    assert_mentions(
        &checkpoint.index_differences().unwrap(),
        &[
            "files that are absent: 2 (one.safetensors)",
            "tensors that are in other files: 1",
            "in no file: 1",
        ],
    );
}

#[test]
fn tensors_are_read_where_they_are_whatever_the_index_says() {
    let directory = Directory::with_config();
    directory.write_tensors(
        "one.safetensors",
        &[floats("a", &[1.0]), floats("c", &[3.0])],
    );
    directory.write_tensors("two.safetensors", &[floats("b", &[2.0])]);
    index(
        &directory,
        json!({"a": "one.safetensors", "b": "one.safetensors", "d": "two.safetensors"}),
    );
    let checkpoint = directory.open().unwrap();
    census(&checkpoint, &needs(&["a", "b", "c"])).unwrap();
    assert_eq!(checkpoint.read("b").unwrap(), 2.0_f32.to_le_bytes());
    assert_mentions(
        &checkpoint.index_differences().unwrap(),
        &[
            "tensors that are in no file: 1",
            "tensors that are in other files: 1",
            "tensors of the files that are not in it: 1",
        ],
    );
    index(
        &directory,
        json!({"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}),
    );
    assert_eq!(directory.open().unwrap().index_differences(), None);
}

#[test]
fn of_a_tensor_in_several_files_the_index_says_which_counts() {
    let directory = Directory::with_config();
    for (number, file) in [(1.0, "one"), (2.0, "two"), (3.0, "three")] {
        directory.write_tensors(
            &format!("{file}.safetensors"),
            &[floats("a", &[number]), floats(file, &[0.0])],
        );
    }
    let with = |a: &str| {
        let mut map = json!({"one": "one.safetensors", "two": "two.safetensors", "three": "three.safetensors"});
        map["a"] = json!(a);
        index(&directory, map);
    };
    for (number, file) in [(1.0_f32, "one"), (2.0, "two"), (3.0, "three")] {
        with(&format!("{file}.safetensors"));
        assert_eq!(
            directory.open().unwrap().read("a").unwrap(),
            number.to_le_bytes()
        );
    }
    with("four.safetensors");
    let parts = ["a is in one.safetensors and in three.safetensors and in two.safetensors"];
    assert_mentions(&directory.open_error(), &parts);
}

#[test]
fn without_an_index_all_parts_of_one_whole_are_read() {
    let directory = Directory::with_config();
    let part = |name: &str, tensor: &str| {
        directory.write_tensors(&format!("{name}.safetensors"), &[floats(tensor, &[1.0])]);
    };
    part("model-00001-of-00002", "a");
    part("consolidated", "x");
    assert_mentions(
        &directory.open_error(),
        &["parts of the weights are missing: model-00002-of-00002.safetensors"],
    );
    part("model-00002-of-00002", "b");
    part("consolidated-00001-of-00009", "y");
    let checkpoint = directory.open().unwrap();
    let names: Vec<&str> = checkpoint
        .tensors()
        .map(|tensor| tensor.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    part("model-00002-of-00002", "a");
    assert_mentions(
        &directory.open_error(),
        &["a is in model-00001-of-00002.safetensors and in"],
    );
    part("model-00001-of-00003", "c");
    assert_mentions(
        &directory.open_error(),
        &["5 safetensors files but no", "fetch it"],
    );
}

#[test]
fn the_usual_single_file_counts_alone() {
    let directory = Directory::with_config();
    directory.write_tensors("model.safetensors", &[zeros("a", Dtype::F32, &[1])]);
    directory.write_tensors("consolidated.safetensors", &[zeros("b", Dtype::F32, &[1])]);
    let checkpoint = directory.open().unwrap();
    assert!(checkpoint.tensor("a").is_some() && checkpoint.tensor("b").is_none());
}
