//! The README stays short, and every link in the documents leads somewhere.

use std::path::{Path, PathBuf};

use super::{root, visit};

/// What a newcomer reads; the rest is in `docs`.
const README_LINES_MAX: usize = 90;

#[test]
fn the_readme_stays_short() {
    let lines = text(&root().join("README.md")).lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut faults = Vec::new();
    visit(&root(), &mut |path| {
        if path.extension().is_some_and(|ending| ending == "md") {
            let text = text(path);
            let dead = links(&text).filter(|link| !leads_somewhere(path, link));
            faults.extend(dead.map(|link| format!("{}: {link}", path.display())));
        }
    });
    assert!(faults.is_empty(), "dead links: {faults:#?}");
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// The targets of links that stay in the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let behind = prose(text).flat_map(|line| line.split("](").skip(1));
    let targets = behind.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets.filter(|target| !target.contains("://"))
}

fn leads_somewhere(from: &Path, link: &str) -> bool {
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let target: PathBuf = match path {
        "" => from.to_owned(),
        _ => from.parent().expect("a directory").join(path),
    };
    let has_heading = || {
        let text = text(&target);
        prose(&text)
            .filter(|line| line.starts_with('#'))
            .any(|line| anchor(line) == heading)
    };
    target.exists() && (heading.is_empty() || has_heading())
}

/// What GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}
