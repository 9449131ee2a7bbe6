//! What the model is asked: a commit's message, with the files that it changed as they were before.

use serde_json::{Value, json};

use crate::QualifyError;

use super::git::{Entry, Kind, Repository};
use super::paths::Rules;
use super::selection::Task;

/// Of the names of the repository's files.
const NAMES_MAX: usize = 200;

const SYSTEM: &str = "\
You change the code of a repository. Your answer is read by a program, which takes nothing but changed files from it.

Give each file that you change or add, whole, behind a line with its path:

FILE: path/of/file.py
```
all of its new content
```

Of a long file you can give only the places that change instead. Each text to search must be whole lines that stand in \
the file exactly once, with all their spaces:

FILE: path/of/file.py
```
<<<<<<< SEARCH
lines as they are now
=======
lines that come in their place
>>>>>>> REPLACE
```

If the content itself has a line of three backticks, begin and end the block with four. Files of tests cannot be changed.";

/// The chat that asks for a task.
pub(super) fn ask(
    repository: &Repository,
    rules: &Rules,
    task: &Task,
    shows_tests: bool,
) -> Result<Value, QualifyError> {
    let parent = repository.tree(&task.parent)?;
    let mut text = format!("# Request\n\n{}\n", task.message);
    let names: Vec<&str> = parent
        .keys()
        .map(String::as_str)
        .filter(|path| !rules.is_test(path))
        .collect();
    text.push_str("\n# Files of the repository\n\n");
    for name in names.iter().take(NAMES_MAX) {
        text.push_str(name);
        text.push('\n');
    }
    if names.len() > NAMES_MAX {
        text.push_str(&format!("... and {} more\n", names.len() - NAMES_MAX));
    }
    text.push_str("\n# Files to change\n");
    for path in &task.code {
        match parent.get(path) {
            None => text.push_str(&format!("\n{path} does not exist yet.\n")),
            Some(entry) => show(&mut text, path, text_of(repository, path, entry)?),
        }
    }
    if shows_tests {
        let commit = repository.tree(&task.commit)?;
        text.push_str("\n# Tests that will be run\n");
        for path in &task.tests {
            if let Some(entry) = commit.get(path) {
                show(&mut text, path, text_of(repository, path, entry)?);
            }
        }
    }
    Ok(json!({
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": text},
        ]
    }))
}

/// A file's text, if it is one.
pub(super) fn text_of(
    repository: &Repository,
    path: &str,
    entry: &Entry,
) -> Result<Option<String>, QualifyError> {
    if !matches!(entry.kind, Kind::File | Kind::Executable) {
        return Ok(None);
    }
    let mut text = None;
    repository.contents(&[(path, entry)], |_, _, content| {
        text = String::from_utf8(content.to_vec()).ok();
        Ok(())
    })?;
    Ok(text)
}

fn show(into: &mut String, path: &str, text: Option<String>) {
    let Some(text) = text else {
        into.push_str(&format!("\n{path} is no text.\n"));
        return;
    };
    let fence = fence_for(&text);
    let end = if text.ends_with('\n') || text.is_empty() {
        ""
    } else {
        "\n"
    };
    into.push_str(&format!("\nFILE: {path}\n{fence}\n{text}{end}{fence}\n"));
}

/// More backticks than any line of the text begins with.
fn fence_for(text: &str) -> String {
    let backticks = |line: &str| line.bytes().take_while(|byte| *byte == b'`').count();
    let most = text.lines().map(backticks).max().unwrap_or(0);
    "`".repeat((most + 1).max(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_file_cannot_end_its_block() {
        let mut shown = String::new();
        show(&mut shown, "a.md", Some("````\nx".into()));
        assert_eq!(shown, "\nFILE: a.md\n`````\n````\nx\n`````\n");
        show(&mut shown, "b", None);
        assert!(shown.ends_with("b is no text.\n"));
    }
}
