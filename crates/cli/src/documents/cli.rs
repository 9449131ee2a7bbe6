//! The page of commands and settings, from the command line's own description.

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, Command, CommandFactory};

use super::markdown::{Table, code};
use crate::args::CommandLine;

/// What a help text ends with if it says what holds without the setting.
const DEFAULT_MARK: &str = "[default: ";

pub(super) fn write() -> String {
    let program = CommandLine::command();
    let mut text = "What the command line says counts, else the environment, else the file that \
                    `--config` names, else the default. The file is TOML, and names settings as the \
                    flags are named, without dashes in front.\n\n"
        .to_owned();
    let mut written: Vec<&Arg> = Vec::new();
    for command in program
        .get_subcommands()
        .filter(|known| !known.is_hide_set())
    {
        text.push_str(&write_command(command, &mut written));
    }
    text
}

/// One command, without the settings that an earlier one has too.
fn write_command<'a>(command: &'a Command, written: &mut Vec<&'a Arg>) -> String {
    let name = command.get_name();
    let mut text = format!(
        "## {name}\n\n{}\n\n",
        sentence(
            &command
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default()
        )
    );
    let (known, new): (Vec<&Arg>, Vec<&Arg>) = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
        .partition(|argument| {
            let is_written = written.iter().any(|earlier| is_same(earlier, argument));
            // Without a heading there is nothing to refer to.
            is_written && !heading_of(argument).is_empty()
        });
    if !known.is_empty() {
        let headings = headings(&known)
            .into_iter()
            .map(|heading| format!("[{heading}](#{})", anchor(heading)));
        let headings: Vec<String> = headings.collect();
        text.push_str(&format!(
            "It takes the settings of `serve` under {}.\n\n",
            headings.join(", ")
        ));
    }
    for heading in headings(&new) {
        let own = new
            .iter()
            .filter(|argument| heading_of(argument) == heading);
        if !heading.is_empty() {
            text.push_str(&format!("### {heading}\n\n"));
        }
        let mut table = Table::new(&["setting", "default", "environment", ""]);
        for argument in own {
            table.row(&row(argument));
        }
        text.push_str(&table.finish());
    }
    written.extend(new);
    text
}

/// The headings in the order of their first settings.
fn headings<'a>(arguments: &[&'a Arg]) -> Vec<&'a str> {
    let mut headings = Vec::new();
    for argument in arguments {
        let heading = heading_of(argument);
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    headings
}

fn heading_of(argument: &Arg) -> &str {
    argument.get_help_heading().unwrap_or_default()
}

/// What GitHub makes of a heading of words.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-")
}

fn is_same(one: &Arg, other: &Arg) -> bool {
    one.get_id() == other.get_id() && help(one) == help(other)
}

fn help(argument: &Arg) -> String {
    argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn row(argument: &Arg) -> [String; 4] {
    let help = help(argument);
    let (what, default) = match help.rsplit_once(DEFAULT_MARK) {
        Some((what, default)) => (what.trim_end(), default.trim_end_matches(['.', ']'])),
        None => (help.as_str(), ""),
    };
    let stated = argument
        .get_default_values()
        .iter()
        .map(|value| code(&value.to_string_lossy().escape_default().to_string()));
    let stated: Vec<String> = stated.collect();
    let default = match takes_value(argument) {
        true if default.is_empty() => stated.join(", "),
        // One word is something that could be written there.
        true if !default.contains(' ') => code(default),
        _ => default.to_owned(),
    };
    let environment = argument.get_env().map(|name| code(&name.to_string_lossy()));
    [
        spelling(argument),
        default,
        environment.unwrap_or_default(),
        format!("{}{}", sentence(what), choices(argument)),
    ]
}

fn takes_value(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Set | ArgAction::Append)
}

/// How it is written on the command line.
fn spelling(argument: &Arg) -> String {
    let values = argument.get_value_names().unwrap_or_default();
    let value = match takes_value(argument) {
        true => values
            .iter()
            .map(|name| format!("<{name}>"))
            .collect::<Vec<_>>()
            .join(" "),
        false => String::new(),
    };
    let short = argument
        .get_short()
        .map(|short| format!("-{short}, "))
        .unwrap_or_default();
    match argument.get_long() {
        Some(long) => code(format!("{short}--{long} {value}").trim_end()),
        None => code(&value),
    }
}

/// Ends in a full stop, which clap takes away from a help text that is one sentence.
fn sentence(text: &str) -> String {
    match text.is_empty() || text.ends_with('.') {
        true => text.to_owned(),
        false => format!("{text}."),
    }
}

/// The values that it may have, where these are few.
fn choices(argument: &Arg) -> String {
    if !takes_value(argument) {
        return String::new();
    }
    let possible = argument.get_possible_values();
    let choice = |value: &PossibleValue| {
        let name = code(value.get_name());
        match value.get_help().map(ToString::to_string) {
            Some(help) => format!("{name}: {}", within_a_sentence(&help)),
            None => name,
        }
    };
    let choices: Vec<String> = possible.iter().map(choice).collect();
    match choices.is_empty() {
        true => String::new(),
        false => format!(" {}.", choices.join("; ")),
    }
}

/// Without a capital at the beginning, unless it is that of a name, and without a full stop.
fn within_a_sentence(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}
