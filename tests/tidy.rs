//! What no compiler keeps: who imports whom, who touches the machine, and how long a file may be.
//!
//! The rules are the tables at the top. A module that does not exist (yet) breaks none of them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Modules (a file, or a folder with all below it) and the parts of this crate they must not know.
const MUST_NOT_KNOW: &[(&str, &[&str], &str)] = &[
    ("time", ABOVE_WORDS, "time is below everything"),
    ("fixed", ABOVE_WORDS, "numbers are below everything"),
    ("ring", ABOVE_WORDS, "a ring holds anything and knows nothing"),
    ("wire", ABOVE_WIRE, "wire is text and its meaning: no connections, no state, nobody who asked"),
    ("net", &["wire", "market", "engine", "shell", "sim", "words", "status"], "a session moves text, whatever it says"),
    ("config", &["net", "market", "engine", "shell", "sim", "words", "status"], "a configuration is read by others"),
    ("status", &["net", "market", "engine", "shell", "sim", "words", "config"], "a status is plain data"),
    ("market", &["engine", "shell", "sim", "words"], "the market does not know who drives it"),
    ("engine", &["shell", "sim", "words"], "the same engine runs in the shell and in the simulation"),
    ("replay", &["net", "shell", "sim", "words"], "a replay needs no clock, no file and no connection"),
    ("shell", &["sim", "words"], "the shell runs against any exchange"),
    ("sim", &["shell", "words"], "the exchange and its world have no shell"),
];
const ABOVE_WORDS: &[&str] = &["wire", "config", "status", "net", "market", "engine", "shell", "sim", "words"];
const ABOVE_WIRE: &[&str] = &["config", "status", "net", "market", "engine", "shell", "sim", "words"];

/// Narrower rules: a module, the path it must not name, and the places inside it that may.
const MUST_NOT_NAME: &[(&str, &str, &[&str], &str)] = &[
    ("sim", "crate::wire::market", &["sim/world"], "an exchange that used our decoders would share their mistakes"),
    ("sim", "crate::market", &["sim/world"], "the exchange keeps its own books"),
    ("sim", "crate::net", &["sim/world"], "the exchange has its own end of a connection"),
    ("sim", "crate::engine", &["sim/world"], "the exchange knows nothing of its clients"),
];

/// What touches the machine, and the only modules that may.
const MACHINE: &[(&str, &[&str])] = &[
    ("std::thread", SHELL),
    ("std::net::TcpStream", SHELL),
    ("std::net::TcpListener", SHELL),
    ("std::net::UdpSocket", SHELL),
    ("std::time::Instant", SHELL),
    ("std::time::SystemTime", SHELL),
    ("std::process::Command", SHELL),
    ("std::env", SHELL),
    ("Instant::now", SHELL),
    ("SystemTime::now", SHELL),
    ("mio", SHELL),
    ("ureq", SHELL),
    ("crossbeam_channel", SHELL),
    ("signal_hook", SHELL),
    ("socket2", SHELL),
    // A configuration names files, and judges some of them while it is read; a recording is one.
    ("std::fs", &["shell", "sim/serve", "words", "main", "config", "recording"]),
    ("clippy::disallowed_methods", SHELL),
];
const SHELL: &[&str] = &["shell", "sim/serve", "words", "main"];

/// Longer files tell more than one story.
const LINES_MAX: usize = 600;

/// What is not finished is not here.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "FIXME"];

#[test]
fn modules_know_only_what_is_below_them() {
    let mut report = String::new();
    for file in sources() {
        for (module, forbidden, why) in MUST_NOT_KNOW.iter().filter(|(module, ..)| file.is_in(module)) {
            for name in file.names.iter().filter(|name| forbidden.iter().any(|part| below(name, &["crate", part]))) {
                let _ = writeln!(report, "{}: {module} must not use {name}: {why}", file.path.display());
            }
        }
        for (module, path, except, why) in MUST_NOT_NAME.iter().filter(|(module, ..)| file.is_in(module)) {
            let named = file.names.iter().any(|name| below(name, &path.split("::").collect::<Vec<_>>()));
            if named && !except.iter().any(|place| file.is_in(place)) {
                let _ = writeln!(report, "{}: {module} must not use {path}: {why}", file.path.display());
            }
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn only_the_shell_touches_the_machine() {
    let mut report = String::new();
    for file in sources() {
        for (path, allowed) in MACHINE.iter().filter(|(_, allowed)| !allowed.iter().any(|place| file.is_in(place))) {
            let parts: Vec<_> = path.split("::").collect();
            if file.names.iter().any(|name| below(name, &parts)) {
                let _ = writeln!(report, "{}: {path} belongs to {}", file.path.display(), allowed.join(", "));
            }
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn files_are_short_and_finished() {
    let mut report = String::new();
    for file in sources() {
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            let _ = writeln!(report, "{}: {lines} lines, at most {LINES_MAX}: split it by story", file.path.display());
        }
        if !file.text.starts_with("//!") {
            let _ = writeln!(report, "{}: does not open with its purpose (//!)", file.path.display());
        }
        for (number, line) in file.text.lines().enumerate() {
            for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
                let _ = writeln!(report, "{}:{}: {word}", file.path.display(), number + 1);
            }
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn the_rules_see_what_they_forbid() {
    let text = "//! Purpose.\n\
        use std::{fmt, fs::{self, File}, thread};\n\
        use crate::{engine::Engine, wire::{market, names as n}};\n\
        use super::shell::run;\n\
        // crate::words is only spoken of\n\
        fn f() { crate::net::link(); let now = Instant::now(); }\n\
        #[cfg(test)]\nmod tests { use crate::sim::world; }\n";
    let source = Source::new(PathBuf::from("wire.rs"), text.to_owned());
    for name in [
        "std::fs::File",
        "std::thread",
        "crate::engine::Engine",
        "crate::wire::names",
        "crate::shell::run",
        "crate::net::link",
        "Instant::now",
    ] {
        assert!(source.names.contains(name), "{name} is not in {:?}", source.names);
    }
    assert!(!source.names.iter().any(|name| name.contains("words") || name.contains("sim")), "{:?}", source.names);
    assert!(below("std::fs::File", &["std", "fs"]) && !below("std::fsx", &["std", "fs"]));
    assert!(Source::new(PathBuf::from("sim/serve/tls.rs"), String::new()).is_in("sim/serve"));
    assert!(!Source::new(PathBuf::from("sim/server.rs"), String::new()).is_in("sim/serve"));
}

/// One file of `src`.
struct Source {
    /// Below `src`.
    path: PathBuf,
    text: String,
    /// Every path its code names, imports written out; what its tests use is their own business.
    names: BTreeSet<String>,
}

impl Source {
    fn new(path: PathBuf, text: String) -> Self {
        let names = names(&text, &path);
        Self { path, text, names }
    }

    /// True for `module.rs` and for everything in the folder `module`.
    fn is_in(&self, module: &str) -> bool {
        self.path.with_extension("") == Path::new(module) || self.path.starts_with(module)
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("sources are text");
                sources.push(Source::new(path.strip_prefix(&root).expect("below src").to_owned(), text));
            }
        }
    }
    assert!(sources.len() > 10, "src was not found");
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// True if the path begins with these parts.
fn below(name: &str, parts: &[&str]) -> bool {
    let mut segments = name.split("::");
    parts.iter().all(|part| segments.next() == Some(part))
}

fn names(text: &str, path: &Path) -> BTreeSet<String> {
    let code: Vec<_> = text
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let code = code.join(" ");
    let mut names = BTreeSet::new();
    for statement in code.split("use ").skip(1) {
        written_out("", statement.split(';').next().unwrap_or_default(), &mut names);
    }
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    names.extend(code.split(|c| !is_path(c)).filter(|word| word.contains("::")).map(str::to_owned));
    names.into_iter().map(|name| absolute(&name, path)).collect()
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn written_out(prefix: &str, tree: &str, names: &mut BTreeSet<String>) {
    let Some((head, rest)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default().trim();
        names.insert(format!("{prefix}{name}"));
        return;
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut begin) = (0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                written_out(&format!("{prefix}{}", head.trim()), &inner[begin..at], names);
                begin = at + 1;
            }
            _ => {}
        }
    }
}

/// `super` from the module's own place; deep ones stay inside their folder and matter to no rule.
fn absolute(name: &str, path: &Path) -> String {
    let mut module: Vec<_> = path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    let mut rest = name.trim_start_matches("::");
    if !rest.starts_with("super::") {
        return rest.to_owned();
    }
    while let Some(above) = rest.strip_prefix("super::") {
        module.pop();
        rest = above;
    }
    module.insert(0, "crate".to_owned());
    module.push(rest.to_owned());
    module.join("::")
}
