//! From where settings may come: a flag, the environment, the file of `--config`, or the default, in this order.
//!
//! Called by main for every command line. [`crate::cli`] says what each flag is; here nothing is listed again: the keys
//! are the flags of `serve` that have a variable.
//!
//! **How.** The command line is read once to learn which file is meant. What the file says then takes the place of the
//! defaults, and the command line is read again: so flags and environment win without another rule, and a value is
//! checked by one parser, wherever it stands.
//!
//! **The promise.** A file is taken as a whole or not at all: an unknown key is refused with the nearest known one, a
//! value that can't be with its key, its line and what is allowed, all faults at once, also where a flag would win. A
//! variable of the environment is refused in the same way. The environment may hold variables that are not ours under
//! the same prefix, so there an unknown one is no fault; [`strangers`] names those that look like a slip.
//!
//! **What a flag must not use.** What clap knows of two flags together (`requires`, `conflicts_with`) goes by flags that
//! were said, and a file's are not: such rules belong into [`crate::config`].
//!
//! **The limits.** A file of [`FILE_BYTES_MAX`]. Keys are flat; there are no secrets among them, only paths of files.

use crate::Failure;
use crate::cli::Cli;
use anyhow::Context;
use clap::builder::OsStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};
use serde_json::{Value, json};
use std::any::TypeId;
use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What every variable of ours begins with.
const PREFIX: &str = "PLAYHEAD_";

/// From which likeness on two names are taken to be a slip of one; 1 is the same.
const LIKE: f64 = 0.9;

/// A command line, read.
pub(crate) struct Said {
    pub(crate) cli: Cli,
    pub(crate) matches: ArgMatches,
    pub(crate) file: Option<SettingsFile>,
}

/// What a file says.
pub(crate) struct SettingsFile {
    pub(crate) path: PathBuf,
    values: BTreeMap<String, FileValue>,
}

struct FileValue {
    line: usize,
    /// As they would be said on the command line; more than one only in a list.
    texts: Vec<String>,
}

impl SettingsFile {
    /// How many keys it has.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }
}

/// Reads a command line and what it refers to. Wrong flags, `--help` and `--version` end the process here.
pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Said, Failure> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let matches = matches(Cli::command(), &arguments)?;
    let file = matches.get_one::<PathBuf>("config").map(|path| read_file(path)).transpose()?;
    let matches = match &file {
        Some(file) => self::matches(with_defaults(Cli::command(), file), &arguments)?,
        None => matches,
    };
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    Ok(Said { cli, matches, file })
}

fn matches(mut command: Command, arguments: &[OsString]) -> Result<ArgMatches, Failure> {
    command.try_get_matches_from_mut(arguments).or_else(|error| match complaint_about_the_environment(&error) {
        Some(complaint) => Err(Failure::usage(complaint)),
        None => error.exit(),
    })
}

/// The command, with what the file says in the place of its defaults.
fn with_defaults(command: Command, file: &SettingsFile) -> Command {
    let with_default = |arg: Arg| match key(&arg).and_then(|key| file.values.get(&key)) {
        Some(value) => arg.default_values(value.texts.iter().map(OsStr::from)),
        None => arg,
    };
    command.mut_args(with_default).mut_subcommands(|command| with_defaults(command, file))
}

/// The key that a flag is, if it is one.
fn key(arg: &Arg) -> Option<String> {
    let variable = arg.get_env()?.to_str()?.strip_prefix(PREFIX)?;
    (arg.get_id() != "config").then(|| variable.to_ascii_lowercase())
}

/// Every key with its flag, in the order of `serve --help`.
pub(crate) fn keys() -> Vec<(String, Arg)> {
    // Building it settles what follows from what: a flag without a value has the default `false`, for one.
    let mut command = Cli::command();
    command.build();
    let serve = command.find_subcommand("serve").expect("there is a command serve");
    serve.get_arguments().filter_map(|arg| Some((key(arg)?, arg.clone()))).collect()
}

/// The name of a key's variable.
pub(crate) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase())
}

/// Of these names the one most like this.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<(f64, &'a str)> {
    names.map(|known| (strsim::jaro_winkler(name, known), known)).max_by(|one, other| one.0.total_cmp(&other.0))
}

fn read_file(path: &Path) -> Result<SettingsFile, Failure> {
    let unreadable = || format!("can't read the settings in {}: give a file that this user may read", path.display());
    let mut text = String::new();
    let file = fs::File::open(path).with_context(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).with_context(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("{} is longer than {FILE_BYTES_MAX} bytes", path.display())));
    }
    let line_of = |offset: usize| text[..offset].matches('\n').count() + 1;
    let table = DeTable::parse(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(span.start));
        Failure::usage(format!("{}, line {line}: this is not TOML: {}", path.display(), error.message()))
    })?;
    let keys = keys();
    let mut values = BTreeMap::new();
    let mut faults = Vec::new();
    for (name, value) in table.into_inner() {
        let line = line_of(name.span().start);
        let name = name.into_inner().into_owned();
        let Some((_, arg)) = keys.iter().find(|(key, _)| *key == name) else {
            let (_, nearest) = nearest(&name, keys.iter().map(|(key, _)| key.as_str())).expect("there are keys");
            faults.push((line, format!("there is no key {name}; the nearest is {nearest}")));
            continue;
        };
        match texts(arg, value.into_inner()).and_then(|texts| check(arg, &texts).map(|()| texts)) {
            Ok(texts) => drop(values.insert(name, FileValue { line, texts })),
            Err(complaint) => faults.push((line, format!("{name}: {complaint}"))),
        }
    }
    if faults.is_empty() {
        return Ok(SettingsFile { path: path.to_owned(), values });
    }
    faults.sort();
    let lines: Vec<_> =
        faults.iter().map(|(line, fault)| format!("{}, line {line}: {fault}", path.display())).collect();
    Err(Failure::usage(lines.join("\n       ")))
}

/// A value of the file, as it would be said on the command line.
fn texts(arg: &Arg, value: DeValue<'_>) -> Result<Vec<String>, String> {
    let is_list = arg.get_value_delimiter().is_some();
    let text = |value: DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.into_owned()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Ok(number.to_string()),
            Err(_) => Err("this number is too large".to_owned()),
        },
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(is_so) => Ok(is_so.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) if is_list => {
            Err("it is a text or a list of texts".to_owned())
        }
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => Err("it is one text or number".to_owned()),
    };
    match value {
        DeValue::Array(values) if is_list => values.into_iter().map(|value| text(value.into_inner())).collect(),
        value => Ok(vec![text(value)?]),
    }
}

/// Whether a flag may have these values; else what is allowed.
fn check(arg: &Arg, texts: &[String]) -> Result<(), String> {
    if type_of(arg) == Type::Bool {
        let is_good = texts.iter().all(|text| ["true", "false"].contains(&text.as_str()));
        return if is_good { Ok(()) } else { Err("it is true or false".to_owned()) };
    }
    let flag = format!("--{}", arg.get_long().expect("every key has a flag"));
    let words = texts.iter().map(|text| format!("{flag}={text}"));
    match Command::new("check").no_binary_name(true).arg(arg.clone()).try_get_matches_from(words) {
        Ok(_) => Ok(()),
        Err(error) => Err(allowed(&error)),
    }
}

/// What the value of an error should have been.
fn allowed(error: &clap::Error) -> String {
    match (error.get(ContextKind::ValidValue), error.source()) {
        (Some(ContextValue::Strings(values)), _) if !values.is_empty() => format!("it is one of {}", values.join(", ")),
        (_, Some(source)) => source.to_string(),
        _ => "it can't have this value".to_owned(),
    }
}

/// The library tells of a flag even if it was the flag's variable.
fn complaint_about_the_environment(error: &clap::Error) -> Option<String> {
    if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        return None;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    let (key, arg) = keys().into_iter().find(|(_, arg)| arg.to_string() == *flag)?;
    let value = std::env::var_os(variable(&key))?.into_string().ok()?;
    let complaint = check(&arg, &[value]).err()?;
    Some(format!("{} in the environment: {complaint}", variable(&key)))
}

/// Variables of the environment that are no keys and look like one: what is there, and what may be meant.
pub(crate) fn strangers() -> Vec<(String, String)> {
    let keys = keys();
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut strangers: Vec<_> = names
        .filter_map(|name| {
            let stranger = name.strip_prefix(PREFIX)?.to_ascii_lowercase();
            let (likeness, nearest) = nearest(&stranger, keys.iter().map(|(key, _)| key.as_str()))?;
            ((LIKE..1.0).contains(&likeness)).then(|| (name, variable(nearest)))
        })
        .collect();
    strangers.sort();
    strangers
}

/// What the values of a key are, where that makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Bool,
    Number,
    Text,
    Texts,
}

fn type_of(arg: &Arg) -> Type {
    let id = arg.get_value_parser().type_id();
    let numbers = [TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>()];
    if id == TypeId::of::<bool>() {
        Type::Bool
    } else if numbers.iter().any(|number| id == *number) || id == TypeId::of::<f64>() {
        Type::Number
    } else if arg.get_value_delimiter().is_some() {
        Type::Texts
    } else {
        Type::Text
    }
}

/// The value of one key, and where it comes from.
pub(crate) struct Setting {
    pub(crate) key: String,
    /// A string, a number, a boolean or a list of strings; null if nothing is set.
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag,
    Environment,
    File { path: PathBuf, line: usize },
    Default,
}

/// Every key's value, of a command that has the flags of `serve`.
pub(crate) fn settings(matches: &ArgMatches, file: Option<&SettingsFile>) -> Vec<Setting> {
    let setting = |(key, arg): (String, Arg)| {
        let id = arg.get_id().as_str();
        let texts: Vec<_> =
            matches.get_raw(id).into_iter().flatten().map(|text| text.to_string_lossy().into_owned()).collect();
        let said = file.and_then(|file| Some((file, file.values.get(&key)?)));
        let origin = match (matches.value_source(id), said) {
            (Some(ValueSource::CommandLine), _) => Origin::Flag,
            (Some(ValueSource::EnvVariable), _) => Origin::Environment,
            (_, Some((file, value))) => Origin::File { path: file.path.clone(), line: value.line },
            _ => Origin::Default,
        };
        Setting { key, value: typed(type_of(&arg), texts), origin }
    };
    keys().into_iter().map(setting).collect()
}

/// Texts of one key as what they are.
fn typed(kind: Type, mut texts: Vec<String>) -> Value {
    if kind == Type::Texts {
        return json!(texts);
    }
    let Some(text) = texts.pop() else { return Value::Null };
    match kind {
        // A flag that is given has no text of its own on the command line.
        Type::Bool => json!(text != "false"),
        Type::Number => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        Type::Text | Type::Texts => Value::String(text),
    }
}
