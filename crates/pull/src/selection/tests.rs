use super::*;
use crate::listing::FileDigest;

fn listing(names: &[&str]) -> Listing {
    let file = |name: &&str| RemoteFile {
        name: (*name).to_owned(),
        bytes: 5,
        digest: FileDigest::Git(String::new()),
    };
    Listing {
        commit: String::new(),
        licence: None,
        gated: None,
        files: names.iter().map(file).collect(),
    }
}

fn chosen(names: &[&str], quantization: Option<&str>, index: &str) -> Result<Vec<String>, String> {
    let listing = listing(names);
    let selection = choose(&listing, quantization, |_| Ok(index.as_bytes().to_vec()));
    let selection = selection.map_err(|error| error.to_string())?;
    assert_eq!(selection.bytes, 5 * selection.files.len() as u64);
    Ok(selection.files.into_keys().collect())
}

#[test]
fn only_what_serving_needs_is_chosen() {
    let wanted = [
        "LICENSE.txt",
        "additional_chat_templates/rag.jinja",
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ];
    let unwanted = [
        ".gitattributes",
        "README.md",
        "consolidated.safetensors",
        "flax_model.msgpack",
        "merges.txt",
        "onnx/model.onnx",
        "original/consolidated.00.pth",
        "preprocessor_config.json",
        "pytorch_model.bin",
        "tokenizer.model",
        "1_Pooling/config.json",
    ];
    let all = [&wanted[..], &unwanted[..]].concat();
    assert_eq!(chosen(&all, None, "").unwrap(), wanted);
    let plain = [
        "config.json",
        "merges.txt",
        "model.safetensors",
        "vocab.json",
    ];
    assert_eq!(chosen(&plain, None, "").unwrap(), plain);
}

#[test]
fn shards_are_those_of_the_index() {
    let names = [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        INDEX_FILE,
        "other.safetensors",
    ];
    let index = r#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors","c":"model-1.safetensors"}}"#;
    assert_eq!(chosen(&names, None, index).unwrap(), names[..4]);
    for (index, part) in [
        (
            r#"{"weight_map":{"a":"model-3.safetensors"}}"#,
            "which is not there",
        ),
        (
            r#"{"weight_map":{"a":"../x.safetensors"}}"#,
            "no file of safetensors",
        ),
        (
            r#"{"weight_map":{"a":"/x.safetensors"}}"#,
            "no file of safetensors",
        ),
        (
            r#"{"weight_map":{"a":"model.bin"}}"#,
            "no file of safetensors",
        ),
        (r#"{"weight_map":{}}"#, "names no files"),
        ("[]", "no weight_map"),
    ] {
        let error = chosen(&names, None, index).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn modules_of_sentence_transformers_come_along() {
    let names = [
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "config.json",
        "model.safetensors",
        "modules.json",
        "2_Dense/pytorch_model.bin",
    ];
    assert_eq!(chosen(&names, None, "").unwrap(), names[..6]);
    let within = [
        "0_Transformer/config.json",
        "0_Transformer/model.safetensors",
        "modules.json",
    ];
    assert_eq!(chosen(&within, None, "").unwrap(), within);
}

#[test]
fn gguf_files_come_with_their_terms_and_out_of_their_directories() {
    let names = ["LICENSE", "Q8_0/m-Q8_0.gguf", "config.json", "m-Q4_0.gguf"];
    assert_eq!(
        chosen(&names, Some("q8_0"), "").unwrap(),
        ["LICENSE", "m-Q8_0.gguf"]
    );
    assert!(chosen(&names, None, "").unwrap_err().contains("say which"));
}

#[test]
fn a_repository_without_usable_weights_says_what_it_has() {
    let error = chosen(
        &["config.json", "pytorch_model.bin", "tf_model.h5"],
        None,
        "",
    )
    .unwrap_err();
    assert!(error.contains("only *.bin, *.h5"), "{error}");
    let error = chosen(&["README.md"], None, "").unwrap_err();
    assert!(error.contains("no weights at all"), "{error}");
    let error = chosen(&["model.safetensors"], Some("Q4_0"), "").unwrap_err();
    assert!(error.contains("without :QUANTISATION"), "{error}");
}
