//! Prints `docs/plugin.md`: the text of `clidoc.md`, and every command with its flags.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};
use kubectl_stopc::args::Args;

const HEAD: &str = include_str!("clidoc.md");
/// Columns of a line of prose.
const WIDTH: usize = 100;

fn main() -> std::fmt::Result {
    let mut command = Args::command();
    command.build();
    let mut text = HEAD.to_owned();
    let global: Vec<_> = command
        .get_arguments()
        .filter(|arg| arg.is_global_set() && !arg.is_hide_set())
        .cloned()
        .collect();
    text.push_str("## Flags of all commands\n\n");
    flags(&mut text, global.iter())?;
    text.push_str("## Commands\n");
    let commands: Vec<_> = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
        .collect();
    text.push_str("\n| command | purpose |\n|---|---|\n");
    for command in &commands {
        let name = command.get_name();
        writeln!(text, "| [{name}](#kubectl-stopc-{name}) | {} |", about(command))?;
    }
    for command in commands {
        section(&mut text, command)?;
    }
    print!("{text}");
    Ok(())
}

fn section(text: &mut String, command: &Command) -> std::fmt::Result {
    writeln!(text, "\n### kubectl stopc {}\n", command.get_name())?;
    let long = command.get_long_about().or_else(|| command.get_about());
    for paragraph in long.map(ToString::to_string).unwrap_or_default().split("\n\n") {
        writeln!(text, "{}\n", wrapped(&sentence(paragraph)))?;
    }
    let usage = command.clone().render_usage().to_string();
    writeln!(text, "```text\n{}\n```\n", usage.trim_start_matches("Usage: "))?;
    let own = |arg: &&Arg| !arg.is_global_set() && !arg.is_hide_set() && arg.get_id() != "help";
    flags(text, command.get_arguments().filter(own))?;
    if let Some(examples) = command.get_after_help() {
        let examples = examples.to_string();
        let lines = examples.lines().skip(1).map(str::trim_start);
        writeln!(text, "```sh\n{}\n```", lines.collect::<Vec<_>>().join("\n"))?;
    }
    while text.ends_with("\n\n") {
        text.pop();
    }
    Ok(())
}

fn flags<'a>(text: &mut String, args: impl Iterator<Item = &'a Arg>) -> std::fmt::Result {
    let args: Vec<_> = args.collect();
    if args.is_empty() {
        return Ok(());
    }
    text.push_str("| flag | meaning |\n|---|---|\n");
    for arg in args {
        writeln!(text, "| `{}` | {} |", name(arg), cell(arg))?;
    }
    text.push('\n');
    Ok(())
}

/// `-o, --output FORMAT`, or `NAME` of an argument without a flag.
fn name(arg: &Arg) -> String {
    let values = arg.get_value_names().unwrap_or_default();
    let value = values.first().filter(|_| arg.get_action().takes_values());
    let value = value.map_or_else(String::new, ToString::to_string);
    let optional = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
    let flags = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, Some(long)) => format!("--{long}"),
        (None, None) => return value,
    };
    match value.as_str() {
        "" => flags,
        value if optional => format!("{flags}[={value}]"),
        value => format!("{flags} {value}"),
    }
}

/// The help of a flag with its values and default.
fn cell(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut text = sentence(&help);
    let values = arg.get_possible_values();
    if !values.is_empty() && !arg.is_hide_possible_values_set() && arg.get_action().takes_values() {
        let names: Vec<_> = values
            .iter()
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        let _ = write!(text, " Values: {}.", names.join(", "));
    }
    let defaults: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    let takes_value = arg.get_action().takes_values();
    if !defaults.is_empty() && takes_value && !arg.is_hide_default_value_set() {
        let _ = write!(text, " Default: {}.", defaults.join(", "));
    }
    text.replace('|', "\\|").replace('\n', " ")
}

fn about(command: &Command) -> String {
    sentence(&command.get_about().map(ToString::to_string).unwrap_or_default())
}

/// clap removes the full stop of a doc comment with one paragraph.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with(['.', ']', '`', ':']) {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}

fn wrapped(text: &str) -> String {
    let mut out = String::new();
    let mut columns = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if columns > 0 && columns + 1 + length > WIDTH {
            out.push('\n');
            columns = 0;
        } else if columns > 0 {
            out.push(' ');
            columns += 1;
        }
        out.push_str(word);
        columns += length;
    }
    out
}
