//! Rust sources as the rules see them: code and comments apart, what strings say left out, test code marked.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// One file.
pub(crate) struct Source {
    /// Relative to the workspace, with `/`.
    pub(crate) path: String,
    pub(crate) lines: Vec<Line>,
}

/// One line of a file.
#[derive(Default, Clone)]
pub(crate) struct Line {
    /// Without comments, and with every text between quotes emptied.
    pub(crate) code: String,
    /// What the comments on this line say.
    pub(crate) comment: String,
    /// Whether it is compiled for tests only.
    pub(crate) test: bool,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let mut lines = split(text);
        if is_test_file(path) {
            lines.iter_mut().for_each(|line| line.test = true);
        } else {
            mark_tests(&mut lines);
        }
        Self { path: path.into(), lines }
    }

    /// Lines of code that end up in a program, with their numbers.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines.iter().enumerate().filter(|(_, line)| !line.test).map(|(index, line)| (index + 1, line))
    }

    /// `relay` of `relay/src/front/tcp.rs`.
    pub(crate) fn krate(&self) -> &str {
        self.path.split('/').next().unwrap()
    }

    /// `["front", "tcp"]` of `relay/src/front/tcp.rs`, `["front"]` of its door, nothing of `lib.rs`; none outside `src`.
    pub(crate) fn module(&self) -> Option<Vec<&str>> {
        let (_, inside) = self.path.split_once("/src/")?;
        let mut module: Vec<_> = inside.strip_suffix(".rs")?.split('/').collect();
        if matches!(module.as_slice(), ["lib"] | ["main"]) || module.last() == Some(&"mod") {
            module.pop();
        }
        Some(module)
    }

    pub(crate) fn is_door(&self) -> bool {
        self.path.ends_with("/mod.rs") || self.path.ends_with("/src/lib.rs")
    }

    pub(crate) fn is_main(&self) -> bool {
        self.path.ends_with("/main.rs")
    }
}

/// Every Rust file of the workspace, read once.
pub(crate) fn house() -> &'static [Source] {
    static HOUSE: OnceLock<Vec<Source>> = OnceLock::new();
    HOUSE.get_or_init(|| {
        let (root, mut sources) = (crate::root(), Vec::new());
        walk(&root, &root, &mut sources);
        assert!(sources.len() > 10, "found hardly any source below {}", root.display());
        sources.sort_by(|one: &Source, other: &Source| one.path.cmp(&other.path));
        sources
    })
}

fn walk(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_symlink() || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            // Where cargo builds, also under another name than `target`.
            if !path.join("CACHEDIR.TAG").exists() && name != "target" {
                walk(root, &path, sources);
            }
        } else if name.ends_with(".rs") {
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap();
            sources.push(Source::new(relative, &fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The end-to-end crate is one big test; a file named `tests.rs` or `NAME_tests.rs` holds the tests of its neighbour.
fn is_test_file(path: &str) -> bool {
    let beside = path.split('/').any(|part| matches!(part, "tests" | "benches" | "examples" | "tests.rs"));
    beside || path.ends_with("_tests.rs") || path.starts_with("e2e/")
}

#[derive(PartialEq)]
enum Inside {
    Code,
    Comment,
    Block(usize),
    Text,
    Raw(usize),
}

/// Tells code, comments and quoted text apart.
fn split(text: &str) -> Vec<Line> {
    let chars: Vec<char> = text.chars().collect();
    let (mut lines, mut line, mut inside, mut at) = (Vec::new(), Line::default(), Inside::Code, 0);
    let is_name = |at: usize| chars.get(at).is_some_and(|char| char.is_alphanumeric() || *char == '_');
    let next = |at: usize, wanted: &str| wanted.chars().enumerate().all(|(k, char)| chars.get(at + k) == Some(&char));
    while at < chars.len() {
        let char = chars[at];
        if char == '\n' {
            lines.push(std::mem::take(&mut line));
            if inside == Inside::Comment {
                inside = Inside::Code;
            }
            at += 1;
            continue;
        }
        let mut step = 1;
        match inside {
            Inside::Code if next(at, "//") => inside = Inside::Comment,
            Inside::Code if next(at, "/*") => (inside, step) = (Inside::Block(1), 2),
            Inside::Code if char == '"' => {
                line.code.push('"');
                inside = Inside::Text;
            }
            Inside::Code if char == 'r' && (at == 0 || !is_name(at - 1) || matches!(chars[at - 1], 'b' | 'c')) => {
                let hashes = chars[at + 1..].iter().take_while(|char| **char == '#').count();
                if chars.get(at + 1 + hashes) == Some(&'"') {
                    line.code.push_str("r\"");
                    (inside, step) = (Inside::Raw(hashes), hashes + 2);
                } else {
                    line.code.push('r');
                }
            }
            // A character, not the name of a lifetime.
            Inside::Code if char == '\'' && (next(at + 1, "\\") || chars.get(at + 2) == Some(&'\'')) => {
                line.code.push_str("''");
                let from = at + if next(at + 1, "\\") { 3 } else { 2 };
                step = chars[from..].iter().take_while(|char| **char != '\'').count() + from + 1 - at;
            }
            Inside::Code => line.code.push(char),
            Inside::Comment => line.comment.push(char),
            Inside::Block(depth) if next(at, "/*") => (inside, step) = (Inside::Block(depth + 1), 2),
            Inside::Block(depth) if next(at, "*/") => {
                (inside, step) = (if depth == 1 { Inside::Code } else { Inside::Block(depth - 1) }, 2);
            }
            Inside::Block(_) => line.comment.push(char),
            // An escaped line end still ends a line.
            Inside::Text if char == '\\' && chars.get(at + 1) != Some(&'\n') => step = 2,
            Inside::Text if char == '"' => {
                line.code.push('"');
                inside = Inside::Code;
            }
            Inside::Raw(hashes) if char == '"' && next(at + 1, &"#".repeat(hashes)) => {
                line.code.push('"');
                (inside, step) = (Inside::Code, hashes + 1);
            }
            Inside::Text | Inside::Raw(_) => {}
        }
        at += step;
    }
    lines.push(line);
    lines
}

/// Marks what stands under `#[cfg(test)]` or `#[test]`, from the attribute to the end of its item.
fn mark_tests(lines: &mut [Line]) {
    let chars: Vec<(usize, char)> =
        lines.iter().enumerate().flat_map(|(number, line)| line.code.chars().map(move |char| (number, char))).collect();
    let mut at = 0;
    while at < chars.len() {
        let inner = chars.get(at + 1).is_some_and(|next| next.1 == '!');
        let open = at + 1 + usize::from(inner);
        if chars[at].1 != '#' || chars.get(open).is_none_or(|next| next.1 != '[') {
            at += 1;
            continue;
        }
        let close = end_of(&chars, open);
        let attribute: String = chars[open + 1..close].iter().map(|(_, char)| *char).collect();
        if !is_for_tests(&attribute) {
            at = close;
            continue;
        }
        let mut end = close + 1;
        // The item ends with its block or with a semicolon, whichever stands first outside of brackets.
        while end < chars.len() && !inner {
            match chars[end].1 {
                '(' | '[' => end = end_of(&chars, end),
                '{' => {
                    end = end_of(&chars, end);
                    break;
                }
                ';' => break,
                _ => {}
            }
            end += 1;
        }
        let last = if inner { lines.len() - 1 } else { chars[end.min(chars.len() - 1)].0 };
        lines[chars[at].0..=last].iter_mut().for_each(|line| line.test = true);
        at = end + 1;
    }
}

fn is_for_tests(attribute: &str) -> bool {
    let attribute: String = attribute.chars().filter(|char| !char.is_whitespace()).collect();
    let condition = attribute.strip_prefix("cfg(").is_some_and(|rest| {
        !rest.contains("not(test")
            && rest.split(|char: char| !char.is_alphanumeric() && char != '_').any(|word| word == "test")
    });
    let name = attribute.split('(').next().unwrap();
    condition || name == "test" || name.ends_with("::test")
}

/// Where the bracket that opens at `open` closes.
fn end_of(chars: &[(usize, char)], open: usize) -> usize {
    let mut depth = 0;
    for (at, (_, char)) in chars.iter().enumerate().skip(open) {
        match char {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len() - 1
}

#[test]
fn comments_and_texts_are_told_from_code() {
    let text = "let a = \"unsafe // no\"; // why\nlet b = 'x'; /* unsafe /* deep */ still */ let c: &'static str = r#\"say \"hi\" \"#;\n\
                let d = b'\\''; let e = \"two \\\n unsafe lines\"; call()\n";
    let source = Source::new("relay/src/a.rs", text);
    let code: Vec<_> = source.lines.iter().map(|line| line.code.as_str()).collect();
    let expected =
        ["let a = \"\"; ", "let b = '';  let c: &'static str = r\"\";", "let d = b''; let e = \"", "\"; call()", ""];
    assert_eq!(code, expected);
    assert_eq!(source.lines[0].comment, "/ why");
}

#[test]
fn test_code_is_told_from_shipped_code() {
    let text = "fn a() {}\n#[cfg(test)]\nuse x::{y};\nfn b() {}\n#[cfg(all(unix, test))]\n#[allow(x)]\nmod tests {\n  fn c() {}\n}\n\
                #[cfg(not(test))]\nfn d() {}\n#[tokio::test]\nasync fn e(x: [u8; 4]) {\n}\nfn f() {}";
    let source = Source::new("relay/src/a.rs", text);
    let shipped: Vec<_> = source.shipped().map(|(number, _)| number).collect();
    assert_eq!(shipped, [1, 4, 10, 11, 15]);
    assert_eq!(Source::new("relay/tests/a.rs", text).shipped().count(), 0);
}

#[test]
fn a_module_is_named_after_its_file() {
    let module = |path| Source::new(path, "").module().map(|parts| parts.join("::"));
    assert_eq!(module("relay/src/front/tcp.rs").as_deref(), Some("front::tcp"));
    assert_eq!(module("relay/src/front/mod.rs").as_deref(), Some("front"));
    assert_eq!(module("relay/src/lib.rs").as_deref(), Some(""));
    assert_eq!(module("relay/tests/all.rs"), None);
}
