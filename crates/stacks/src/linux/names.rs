//! Names for addresses, from what the program says of itself.

use std::ffi::c_void;

use super::modules::Modules;
use crate::report::Frame;

/// From here on outwards each thread has the same frames: how the standard library starts it.
const START: &str = "__rust_begin_short_backtrace";
/// What the paths of the standard library and of other crates' files begin with, behind which they go on with a
/// directory of no interest.
const FOREIGN: [&str; 2] = ["/rustc/", "/registry/src/"];

/// The calls at these addresses, of which one may be several functions that the compiler put into one.
pub(super) fn of_calls(addresses: &[usize], modules: &Modules) -> Vec<Frame> {
    let frames = addresses.iter().flat_map(|address| at(*address, modules));
    let mut frames: Vec<Frame> = frames.collect();
    let is_start = |frame: &Frame| {
        let function = frame.function.as_deref();
        function.is_some_and(|function| function.contains(START))
    };
    let start = frames.iter().position(is_start);
    frames.truncate(start.unwrap_or(frames.len()));
    frames
}

/// Lets go of the memory that looking up names has taken.
pub(super) fn forget() {
    backtrace::clear_symbol_cache();
}

fn at(address: usize, modules: &Modules) -> Vec<Frame> {
    let mut frames = Vec::new();
    backtrace::resolve(address as *mut c_void, |symbol| {
        let line = symbol.filename().map(|file| {
            let file = file.to_string_lossy();
            match symbol.lineno() {
                Some(line) => format!("{}:{line}", short_path(&file)),
                None => short_path(&file).to_owned(),
            }
        });
        let function = symbol.name().map(|name| format!("{name:#}"));
        frames.push(Frame {
            address,
            function: function.map(|name| without_parameters(&name).to_owned()),
            line,
        });
    });
    if frames.is_empty() {
        frames.push(Frame {
            address,
            function: modules.place(address),
            line: None,
        });
    }
    frames
}

/// A path without the beginning that is the same for all of a library's files.
fn short_path(path: &str) -> &str {
    let cut = |beginning: &str| {
        let behind = path.find(beginning)? + beginning.len();
        let directory = path[behind..].find('/')? + 1;
        Some(&path[behind + directory..])
    };
    FOREIGN.into_iter().find_map(cut).unwrap_or(path)
}

/// A name without the types at its end, which may fill many lines.
fn without_parameters(name: &str) -> &str {
    let start = name
        .find('<')
        .filter(|start| *start > 0 && name.ends_with('>'));
    let Some(start) = start else {
        return name;
    };
    let mut depth = 0_usize;
    let closes = name[start..].char_indices().find(|(at, character)| {
        // The arrow of a function's type closes nothing.
        let is_arrow = name[..start + at].ends_with('-');
        match character {
            '<' => depth += 1,
            '>' if !is_arrow => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    match closes {
        Some((at, _)) if start + at + 1 == name.len() => name[..start].trim_end_matches("::"),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_short() {
        for (name, short) in [
            ("wait", "wait"),
            ("call_once<(), fn(u8) -> Vec<u8>>", "call_once"),
            ("{closure#0}<a::b, c>", "{closure#0}"),
            ("<a::Thread>::park", "<a::Thread>::park"),
            ("a::<u8>::b::<c>", "a::<u8>::b::<c>"),
            ("a::b::<c>", "a::b"),
            ("a<b", "a<b"),
        ] {
            assert_eq!(without_parameters(name), short);
        }
        for (path, short) in [
            ("/rustc/0123/library/std/src/a.rs", "library/std/src/a.rs"),
            (
                "/home/x/.cargo/registry/src/index-1/rayon-1.0/src/a.rs",
                "rayon-1.0/src/a.rs",
            ),
            ("/src/backstop/crates/a.rs", "/src/backstop/crates/a.rs"),
        ] {
            assert_eq!(short_path(path), short);
        }
    }
}
