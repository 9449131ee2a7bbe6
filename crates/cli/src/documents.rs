//! `backstop documents`: writes the pages of the manual that list what the program knows, from where
//! it knows it. A test compares them with the committed ones.

mod api;
mod cli;
mod formats;
mod markdown;
mod models;
mod schema;

use std::path::Path;
use std::process::ExitCode;

use crate::args::DocumentsArgs;

/// How the pages are written anew.
const COMMAND: &str = "cargo run -- documents";

/// A page that is made from the program.
struct Page {
    file: &'static str,
    title: &'static str,
    /// Makes what stands below the title, from the program and a checkout of its source.
    write: fn(&Path) -> Result<String, String>,
}

const PAGES: [Page; 4] = [
    Page {
        file: "api.md",
        title: "API",
        write: |_| api::write(),
    },
    Page {
        file: "cli.md",
        title: "Command line",
        write: |_| Ok(cli::write()),
    },
    Page {
        file: "formats.md",
        title: "Formats",
        write: |_| Ok(formats::write()),
    },
    Page {
        file: "models.md",
        title: "Models",
        write: models::write,
    },
];

impl Page {
    fn text(&self, root: &Path) -> Result<String, String> {
        let (title, body) = (self.title, (self.write)(root)?);
        let body = body.trim_end();
        Ok(format!(
            "<!-- Made from the program by `{COMMAND}`; change it there. -->\n\n# {title}\n\n{body}\n"
        ))
    }
}

/// Writes all pages.
pub(crate) fn run(args: &DocumentsArgs) -> Result<ExitCode, String> {
    for page in PAGES {
        let path = args.root.join("docs").join(page.file);
        std::fs::write(&path, page.text(&args.root)?)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_says_what_the_program_knows() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for page in PAGES {
            let path = root.join("docs").join(page.file);
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            let made = page.text(&root).unwrap();
            let differs = || {
                let (mut committed, mut made) = (committed.lines(), made.lines());
                std::iter::from_fn(|| Some((committed.next(), made.next())))
                    .find(|(committed, made)| committed != made)
            };
            assert!(
                committed == made,
                "docs/{} is out of date, run `{COMMAND}`: {:?}",
                page.file,
                differs()
            );
        }
    }
}
