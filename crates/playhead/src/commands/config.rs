//! `playhead config`: shows settings and where they come from, checks a file of them, explains all of them.
//!
//! **What is shown** is what `serve` would be told if it were called with the same flags, in the same environment. As text
//! it is a file of settings itself, each origin a comment.

use super::print;
use crate::Failure;
use crate::cli::{A_SHARE, A_TIME, CheckConfig, Command, Output};
use crate::config::Config;
use crate::settings::{self, Origin, Setting, SettingsFile};
use clap::{Arg, ArgMatches};
use playhead_engine::bounds::Bound;
use serde_json::{Value, json};
use std::fmt::Write;

/// Prints every key.
pub(crate) fn show(output: Output, matches: &ArgMatches, file: Option<&SettingsFile>) -> Result<(), Failure> {
    let matches = matches.subcommand_matches("config").and_then(|config| config.subcommand_matches("show"));
    let settings = settings::settings(matches.expect("called for `config show` alone"), file);
    warn_of_strangers();
    print(
        match output {
            Output::Text => as_text(&settings).into_bytes(),
            Output::Json => as_json(&settings).into_bytes(),
        }
        .as_slice(),
    );
    Ok(())
}

fn as_text(settings: &[Setting]) -> String {
    let lines: Vec<_> = settings
        .iter()
        .map(|Setting { key, value, .. }| match value {
            Value::Null => format!("# {key} ="),
            // JSON's strings, numbers, booleans and lists of strings are TOML's.
            value => format!("{key} = {value}"),
        })
        .collect();
    let width = lines.iter().map(|line| line.chars().count()).filter(|width| *width < 60).max().unwrap_or(0);
    lines.iter().zip(settings).fold(String::new(), |text, (line, setting)| {
        let origin = match &setting.origin {
            Origin::Flag => "flag".to_owned(),
            Origin::Environment => settings::variable(&setting.key),
            Origin::File { path, line } => format!("{}, line {line}", path.display()),
            Origin::Default if setting.value.is_null() => "not set".to_owned(),
            Origin::Default => "default".to_owned(),
        };
        text + &format!("{line:width$}  # {origin}\n")
    })
}

fn as_json(settings: &[Setting]) -> String {
    let settings = settings.iter().map(|Setting { key, value, origin }| match origin {
        Origin::Flag => json!({"key": key, "value": value, "origin": "flag"}),
        Origin::Environment => {
            json!({"key": key, "value": value, "origin": "environment", "variable": settings::variable(key)})
        }
        Origin::File { path, line } => {
            json!({"key": key, "value": value, "origin": "file", "file": path, "line": line})
        }
        Origin::Default => json!({"key": key, "value": value, "origin": "default"}),
    });
    format!("{}\n", json!({"settings": settings.collect::<Vec<_>>()}))
}

/// On stderr: they are no part of a result.
fn warn_of_strangers() {
    for (stranger, meant) in settings::strangers() {
        eprintln!("warning: {stranger} in the environment is no setting; the nearest is {meant}");
    }
}

/// Checks a file as `serve` would.
pub(crate) fn check(arguments: CheckConfig, file: Option<SettingsFile>) -> Result<(), Failure> {
    let Some(path) = arguments.file.or(file.map(|file| file.path)) else {
        return Err(Failure::usage("no file to check: give one, or set PLAYHEAD_CONFIG"));
    };
    let said = settings::read(["playhead".into(), "serve".into(), "--config".into(), path.into_os_string()])?;
    let (Command::Serve(serve), Some(file)) = (said.cli.command, said.file) else {
        unreachable!("these arguments are `serve` with a file")
    };
    Config::check(&serve)?;
    warn_of_strangers();
    print(format!("{}: {} keys, and `serve` would start with them\n", file.path.display(), file.len()).as_bytes());
    Ok(())
}

const INTRODUCTION: &str = "\
# Configuration

<!-- Made by `playhead config reference`. A test compares the two: change the flag's own text and print it anew. -->

Every setting of `playhead serve` is a flag, a variable of the environment and a key of a file, under one name:

| | |
|---|---|
| flag | `--idle-timeout 60s` |
| environment | `PLAYHEAD_IDLE_TIMEOUT=60s` |
| file, given by `--config FILE` or `PLAYHEAD_CONFIG` | `idle_timeout = \"60s\"` |

A flag wins over the environment, the environment over the file, the file over the default. Other commands take their
flags of the same names from the same places.

The file is [TOML](https://toml.io), flat: no tables. It is taken as a whole or not at all: `serve` refuses an unknown key,
and a value that can't be, with the line and what is meant or allowed. Secrets are never settings, only the paths of
their files are. Relative paths are taken from where the process starts.

```toml
# /etc/playhead.toml
listen = \"0.0.0.0:8080\"
data_dir = \"/var/lib/playhead\"
jwt_secret_file = \"/etc/playhead/secret\"
cors_origin = [\"https://watch.example.com\", \"https://tv.example.com\"]
idle_timeout = \"60s\"
completed_at = 0.9
```

```sh
playhead config check /etc/playhead.toml             # everything that is wrong with it, or exit code 0
playhead config show --config /etc/playhead.toml     # each value, and where it comes from; also --output json
```

";

const BOUNDS: &str = "\
## Fixed bounds

What is not a setting is bounded too. Every queue, body and list of the server is here or above.

| what | bound | at the bound |
|---|---|---|
";

/// Prints the reference.
pub(crate) fn reference() -> Result<(), Failure> {
    let mut page = INTRODUCTION.to_owned();
    kinds_of_values(&mut page);
    let mut heading = None;
    for (key, arg) in settings::keys() {
        let its_heading = arg.get_help_heading().unwrap_or("Server").to_owned();
        if heading.as_ref() != Some(&its_heading) {
            let _ = write!(page, "\n## {its_heading}\n\n| key | value | default | |\n|---|---|---|---|\n");
        }
        heading = Some(its_heading);
        let _ = writeln!(page, "{}", row(&key, &arg));
    }
    page.push('\n');
    page.push_str(BOUNDS);
    for Bound { what, bound, then } in playhead_server::bounds().into_iter().chain(playhead_engine::bounds::bounds()) {
        let _ = writeln!(page, "| {what} | {} | {then} |", with_commas(bound));
    }
    print(page.as_bytes());
    Ok(())
}

fn kinds_of_values(page: &mut String) {
    let kinds = [
        ("ADDRESS", "an address and a port, such as 127.0.0.1:8080 or [::]:8080"),
        ("TIME", A_TIME),
        ("SHARE", A_SHARE),
        ("N, BYTES", "a whole number"),
        ("FILE, DIRECTORY", "a path"),
        ("true", "a flag: `true` or `false` in the file and in the environment, alone on the command line"),
    ];
    page.push_str("| value | |\n|---|---|\n");
    for (kind, meaning) in kinds {
        let _ = writeln!(page, "| {kind} | {meaning} |");
    }
}

fn row(key: &str, arg: &Arg) -> String {
    let possible: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let value = match arg.get_value_names() {
        _ if arg.get_num_args().is_some_and(|count| !count.takes_values()) => "true".to_owned(),
        _ if !possible.is_empty() => possible.join(", "),
        names => names.unwrap_or_default().join(" "),
    };
    let default = match arg.get_default_values() {
        [] => "not set".to_owned(),
        values => values.iter().map(|value| format!("`{}`", value.to_string_lossy())).collect::<Vec<_>>().join(", "),
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    // The help of one flag is a sentence; its columns are the table's.
    format!("| `{key}` | {value} | {default} | {} |", help.replace('|', "\\|"))
}

/// 65536 as 65,536.
fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
