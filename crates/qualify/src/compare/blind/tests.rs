//! A blind page says nothing of who is who, and its key says it all.

use super::*;
use crate::compare::args::UnblindArgs;
use crate::compare::fixtures::{Planned, scratch, write};
use crate::compare::unblind::unblind;

const MODELS: [&str; 2] = ["maker/Alpha-Coder-7B", "other/Omega-30B"];

/// Directories of two whose answers say who they are, and the results within.
fn two(name: &str) -> ([std::path::PathBuf; 2], [Results; 2]) {
    let root = scratch(name);
    let directories = [root.join("a"), root.join("b")];
    for (side, directory) in directories.iter().enumerate() {
        let text = [
            "I am Alpha-Coder-7B, called primary.",
            "OMEGA-30B <b>here</b>, by Omegacorp.",
        ];
        let planned = (0..30).map(|task| Planned {
            task: format!("t{task}"),
            // In every third, the two say the same.
            text: match task % 3 {
                0 => "Hello.".into(),
                _ => format!("{} Answer {task}.", text[side]),
            },
            ..Planned::default()
        });
        write(directory, MODELS[side], planned);
    }
    let results = [0, 1].map(|side| Results::read(&directories[side]).unwrap());
    (directories, results)
}

fn blind(name: &str, seed: u64, pairs: usize) -> (Blind, Key) {
    let (directories, results) = two(name);
    let blind = Blind::new(&Source {
        names: &["primary".into(), "fallback".into()],
        directories: [&directories[0], &directories[1]],
        results: &results,
        seed,
        pairs,
        hide: &["omegacorp".into()],
    });
    let blind = blind.unwrap();
    let key = serde_json::from_slice(&blind.key).unwrap();
    std::fs::remove_dir_all(directories[0].parent().unwrap()).unwrap();
    (blind, key)
}

#[test]
fn a_page_does_not_say_who_is_who() {
    let (blind, key) = blind("leak", 5, 100);
    let page = blind.page.to_lowercase();
    for name in [
        "primary",
        "fallback",
        "alpha-coder",
        "omega",
        "maker/",
        "other/",
        ".example",
        &key.secret,
    ] {
        assert!(!page.contains(name), "{name} is on the page");
    }
    assert!(page.contains(&seal(&blind.key)));
    assert!(
        page.contains("&lt;b&gt;here&lt;/b&gt;"),
        "what models wrote is text"
    );
    // Pairs in which both said the same are not worth anybody's time.
    assert_eq!(key.pairs.len(), 20);
    assert_eq!(blind.page.matches("<section class=\"pair\"").count(), 20);
}

#[test]
fn the_coin_is_fair_and_seeded_and_the_key_is_what_is_on_the_page() {
    let (blind_page, key) = blind("coin", 5, 20);
    let (_, again) = blind("coin-again", 5, 20);
    let (_, other) = blind("coin-other", 6, 20);
    assert_eq!(key.pairs, again.pairs);
    assert_ne!(key.pairs, other.pairs);
    assert_ne!(
        key.secret, again.secret,
        "nobody finds the key by trying seeds"
    );
    let heads = key.pairs.iter().filter(|pair| pair.x == 0).count();
    assert!((4..=16).contains(&heads), "{heads} of 20");
    // The first model's answers have no markup in them, the second's have.
    for (pair, section) in key
        .pairs
        .iter()
        .zip(blind_page.page.split("<section class=\"pair\"").skip(1))
    {
        let (x, y) = section.split_once("<h3>Y</h3>").unwrap();
        let x_is_second = x.contains("here");
        assert_ne!(x_is_second, y.contains("here"));
        assert_eq!(x_is_second, pair.x == 1);
        assert!(section.contains(&format!("Do {}.", pair.task)));
    }
}

#[test]
fn judgements_are_counted_for_whom_they_were_meant() {
    let (blind, key) = blind("judged", 1, 20);
    let root = scratch("judged-files");
    std::fs::create_dir_all(&root).unwrap();
    let key_path = root.join("key.json");
    std::fs::write(&key_path, &blind.key).unwrap();
    let seal = seal(&blind.key);
    // The first judge prefers the first model in all but two pairs; the second has no preference in the first ten.
    let line = |pair: &KeyPair, side: usize, judge: &str| {
        let better = if pair.x == side { "x" } else { "y" };
        format!(
            "{{\"pair\": {}, \"better\": \"{better}\", \"seal\": \"{seal}\", \"judge\": \"{judge}\"}}\n",
            pair.pair
        )
    };
    let mut lines: String = key
        .pairs
        .iter()
        .map(|pair| line(pair, usize::from(pair.pair <= 2), "one"))
        .collect();
    for pair in &key.pairs[..10] {
        lines += &format!(
            "{{\"pair\": {}, \"better\": \"equal\", \"seal\": \"{seal}\", \"judge\": \"two\"}}\n",
            pair.pair
        );
    }
    let judgements = root.join("judgements.jsonl");
    std::fs::write(&judgements, &lines).unwrap();
    let args = UnblindArgs {
        key: key_path.clone(),
        judgements: vec![judgements.clone()],
        json: None,
    };
    let found = serde_json::to_value(unblind(&args).unwrap()).unwrap();
    assert_eq!(found["preferred"], serde_json::json!([18, 2]));
    assert_eq!((&found["pairs"], &found["judges"]), (&20.into(), &2.into()));
    // 2 of 20: 2 * (1 + 20 + 190) / 2^20.
    assert!((found["sign_test"]["exact_p"].as_f64().unwrap() - 422.0 / 1_048_576.0).abs() < 1e-12);
    assert!(
        found["sentence"]
            .as_str()
            .unwrap()
            .contains("primary was preferred in 18, fallback in 2")
    );
    // Another key does not fit.
    std::fs::write(&key_path, [blind.key.as_slice(), b" "].concat()).unwrap();
    let error = unblind(&args).unwrap_err().to_string();
    assert!(
        error.contains("line 1: its seal is another key's"),
        "{error}"
    );
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn what_is_the_same_everywhere_is_not_judged() {
    let (directories, results) = two("same");
    let error = Blind::new(&Source {
        names: &["a".into(), "b".into()],
        directories: [&directories[0], &directories[0]],
        results: &[
            results.into_iter().next().unwrap(),
            Results::read(&directories[0]).unwrap(),
        ],
        seed: 0,
        pairs: 10,
        hide: &[],
    });
    let error = error.err().unwrap().to_string();
    assert!(error.contains("nothing to judge"), "{error}");
    std::fs::remove_dir_all(directories[0].parent().unwrap()).unwrap();
}
