//! What a model's answer changes: files as a whole, or places in them.
//!
//! A change is a line `FILE: PATH` and a fenced block right behind it. The block is the file's whole new content, or, if
//! its first line is `<<<<<<< SEARCH`, one or more places to replace, in Aider's format. What stands outside of such
//! blocks is talk. Nothing is guessed: a text to search must stand in the file exactly once.

use super::paths;

const MARK: &str = "FILE:";
const SEARCH: &str = "<<<<<<< SEARCH";
const DIVIDER: &str = "=======";
const REPLACE: &str = ">>>>>>> REPLACE";
const FILES_MAX: usize = 100;
const PLACES_MAX: usize = 1000;

/// What an answer says about one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) path: String,
    pub(super) change: Change,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// All of it.
    Whole(String),
    /// Texts and what comes in their place, one after the other.
    Places(Vec<(String, String)>),
}

/// Reads an answer. Errors are for people.
pub(super) fn parse(answer: &str) -> Result<Vec<Edit>, String> {
    let mut edits: Vec<Edit> = Vec::new();
    let mut lines = answer.lines();
    while let Some(line) = lines.next() {
        let Some(path) = path_of(line) else {
            continue;
        };
        let opening = lines.by_ref().find(|line| !line.trim().is_empty());
        let fence = opening
            .and_then(fence_of)
            .ok_or_else(|| format!("no fenced block comes behind {MARK} {path}"))?;
        let mut content = Vec::new();
        loop {
            let line = lines
                .next()
                .ok_or_else(|| format!("the block of {path} has no end"))?;
            if line.trim_end() == fence {
                break;
            }
            content.push(line);
        }
        paths::check(&path)?;
        let change = change(&content).map_err(|why| format!("{path}: {why}"))?;
        add(&mut edits, path, change)?;
        if edits.len() > FILES_MAX {
            return Err(format!("it changes more than {FILES_MAX} files"));
        }
    }
    if edits.is_empty() {
        return Err(format!("it changes no file: there is no line {MARK} PATH"));
    }
    Ok(edits)
}

/// A file's new content. Errors are for people.
pub(super) fn apply(change: &Change, before: Option<&str>) -> Result<String, String> {
    let places = match change {
        Change::Whole(content) => return Ok(content.clone()),
        Change::Places(places) => places,
    };
    let mut text = before.map(str::to_owned);
    for (number, (search, replacement)) in places.iter().enumerate() {
        let place = number + 1;
        text = Some(match text {
            // A new file has nothing to search in.
            None if search.is_empty() => replacement.clone(),
            None => return Err(format!("place {place}: there is no such file to search in")),
            Some(text) => replace(&text, search, replacement)
                .map_err(|why| format!("place {place}: {why}"))?,
        });
    }
    Ok(text.unwrap_or_default())
}

/// Only whole lines are found.
fn replace(text: &str, search: &str, replacement: &str) -> Result<String, String> {
    if search.is_empty() {
        return Err("the text to search is empty, but the file exists".into());
    }
    // The last line of a file may have no end.
    let open_ended = !text.ends_with('\n');
    let closed = if open_ended {
        format!("{text}\n")
    } else {
        text.to_owned()
    };
    let mut found = closed
        .match_indices(search)
        .filter(|(at, _)| *at == 0 || closed.as_bytes()[at - 1] == b'\n');
    let Some((at, _)) = found.next() else {
        return Err("the text to search is not in the file".into());
    };
    if found.next().is_some() || overlaps(&closed, search, at) {
        return Err("the text to search is in the file more than once".into());
    }
    let mut new = String::with_capacity(closed.len() + replacement.len());
    new.push_str(&closed[..at]);
    new.push_str(replacement);
    new.push_str(&closed[at + search.len()..]);
    if open_ended && new.ends_with('\n') {
        new.pop();
    }
    Ok(new)
}

/// Whether the text stands there again, beginning within itself.
fn overlaps(text: &str, search: &str, at: usize) -> bool {
    let lines = search.match_indices('\n').map(|(end, _)| at + end + 1);
    lines
        .filter(|begin| *begin < at + search.len())
        .any(|begin| text[begin..].starts_with(search))
}

fn add(edits: &mut Vec<Edit>, path: String, change: Change) -> Result<(), String> {
    let earlier = edits.iter_mut().find(|edit| edit.path == path);
    match (earlier, change) {
        (None, change) => edits.push(Edit { path, change }),
        (
            Some(Edit {
                change: Change::Places(places),
                ..
            }),
            Change::Places(more),
        ) => places.extend(more),
        (Some(_), _) => return Err(format!("it has {path} twice")),
    }
    Ok(())
}

/// The path of a line `FILE: PATH`, with what Markdown puts around it.
fn path_of(line: &str) -> Option<String> {
    let decorations = ['#', '*', '`', ' ', '\t'];
    let line = line.trim_matches(decorations);
    let path = line.strip_prefix(MARK)?.trim_matches(decorations);
    (!path.is_empty()).then(|| path.to_owned())
}

/// What ends the block that this line begins: as many backticks or tildes.
fn fence_of(line: &str) -> Option<String> {
    let line = line.trim_end();
    let mark = line.chars().next().filter(|mark| "`~".contains(*mark))?;
    let fence: String = line.chars().take_while(|next| *next == mark).collect();
    (fence.len() >= 3 && !line[fence.len()..].contains(mark)).then_some(fence)
}

fn change(lines: &[&str]) -> Result<Change, String> {
    if lines.first().is_none_or(|line| line.trim_end() != SEARCH) {
        return Ok(Change::Whole(joined(lines)));
    }
    let mut places = Vec::new();
    let mut rest = lines;
    while !rest.is_empty() {
        if rest[0].trim().is_empty() {
            rest = &rest[1..];
            continue;
        }
        if rest[0].trim_end() != SEARCH {
            return Err(format!(
                "between places there is a line that is not {SEARCH}"
            ));
        }
        let until = |mark: &str, lines: &[&str]| {
            let at = lines.iter().position(|line| line.trim_end() == mark);
            at.ok_or_else(|| format!("a place has no line {mark}"))
        };
        let divider = until(DIVIDER, rest)?;
        let end = divider + until(REPLACE, &rest[divider..])?;
        places.push((joined(&rest[1..divider]), joined(&rest[divider + 1..end])));
        if places.len() > PLACES_MAX {
            return Err(format!("it has more than {PLACES_MAX} places"));
        }
        rest = &rest[end + 1..];
    }
    Ok(Change::Places(places))
}

fn joined(lines: &[&str]) -> String {
    lines.iter().flat_map(|line| [*line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(answer: &str) -> Edit {
        let mut edits = parse(answer).unwrap();
        assert_eq!(edits.len(), 1);
        edits.remove(0)
    }

    #[test]
    fn whole_files_are_taken_out_of_talk() {
        let edit = one(
            "Sure:\n\n**FILE: `src/a.py`**\n\n```python\nx = 1\n\n```\nRun ```it```.\n```sh\nrm\n```\n",
        );
        assert_eq!(
            (edit.path.as_str(), edit.change),
            ("src/a.py", Change::Whole("x = 1\n\n".into()))
        );
        // A longer fence keeps shorter ones.
        let edit = one("FILE: a.md\n````\n```\nx\n```\n````");
        assert_eq!(edit.change, Change::Whole("```\nx\n```\n".into()));
        assert_eq!(
            one("FILE: a\n~~~\n~~~").change,
            Change::Whole(String::new())
        );
    }

    #[test]
    fn places_are_replaced_one_after_the_other() {
        let edit = one(
            "FILE: a.py\n```\n<<<<<<< SEARCH\na = 1\n=======\na = 2\nb = 2\n>>>>>>> REPLACE\n\n\
             <<<<<<< SEARCH\nb = 2\n=======\n>>>>>>> REPLACE\n```\n",
        );
        assert_eq!(
            apply(&edit.change, Some("# x\na = 1\n")).unwrap(),
            "# x\na = 2\n"
        );
        let split = parse(
            "FILE: a\n```\n<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n```\n\
             FILE: a\n```\n<<<<<<< SEARCH\ny\n=======\nz\n>>>>>>> REPLACE\n```",
        );
        assert_eq!(apply(&split.unwrap()[0].change, Some("x")).unwrap(), "z");
    }

    #[test]
    fn a_text_to_search_must_be_whole_lines_that_stand_there_once() {
        let places = |search: &str| Change::Places(vec![(search.into(), "new\n".into())]);
        assert!(
            apply(&places("a\n"), Some("xa\n"))
                .unwrap_err()
                .contains("not in the file")
        );
        assert!(
            apply(&places("a\n"), Some("a\na\n"))
                .unwrap_err()
                .contains("more than once")
        );
        assert!(
            apply(&places("a\na\n"), Some("a\na\na\n"))
                .unwrap_err()
                .contains("more than once")
        );
        assert!(apply(&places(""), Some("a\n")).is_err());
        assert!(apply(&places("a\n"), None).is_err());
        assert_eq!(apply(&places(""), None).unwrap(), "new\n");
        assert_eq!(apply(&places("a\n"), Some("b\na")).unwrap(), "b\nnew");
        assert_eq!(apply(&places("a\n"), Some("xa\na\n")).unwrap(), "xa\nnew\n");
    }

    #[test]
    fn what_is_no_change_is_refused_with_a_reason() {
        for (answer, why) in [
            ("", "no file"),
            ("```python\nx = 1\n```", "no file"),
            ("FILE: a.py\nx = 1", "no fenced block"),
            ("FILE: a.py\n```\nx = 1", "no end"),
            ("FILE: ../a\n```\nx\n```", "no path in the repository"),
            (
                "FILE: /etc/passwd\n```\nx\n```",
                "no path in the repository",
            ),
            ("FILE: .git/config\n```\nx\n```", "git's own"),
            ("FILE: a\n```\nx\n```\nFILE: a\n```\ny\n```", "twice"),
            ("FILE: a\n```\n<<<<<<< SEARCH\nx\n```", "no line ======="),
            (
                "FILE: a\n```\n<<<<<<< SEARCH\nx\n=======\ny\n```",
                "no line >>>>>>> REPLACE",
            ),
            (
                "FILE: a\n```\n<<<<<<< SEARCH\n=======\n>>>>>>> REPLACE\nx\n```",
                "between places",
            ),
        ] {
            let error = parse(answer).unwrap_err();
            assert!(error.contains(why), "{answer:?}: {error}");
        }
    }

    #[test]
    fn many_files_are_refused() {
        let answer: String = (0..200)
            .map(|n| format!("FILE: f{n}\n```\nx\n```\n"))
            .collect();
        assert!(parse(&answer).unwrap_err().contains("more than 100 files"));
    }
}
