//! Source as the rules see it: code without comments and strings, comments alone, and which lines are tests.
//!
//! **The limits.** A lexer of what can hide code: line and nested block comments, plain, byte and raw strings, characters
//! beside lifetimes. Test lines are those of an item under `#[cfg(test)]`, found by its
//! braces.

/// A source file, line by line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) lines: Vec<Line>,
}

/// A line, taken apart. What was taken out of a part is blank there, so columns stay.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// Without comments and without what stands in quotes.
    pub(crate) code: String,
    /// The text of comments.
    pub(crate) comment: String,
    /// Part of a test module or function.
    pub(crate) test: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum In {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text,
    RawText { hashes: usize },
}

impl Source {
    /// Takes a file apart.
    pub(crate) fn read(text: &str) -> Self {
        let characters: Vec<char> = text.chars().collect();
        let mut lines = vec![Line::default()];
        let mut state = In::Code;
        let mut at = 0;
        while at < characters.len() {
            let rest = &characters[at..];
            let (next, taken, part) = step(state, rest, at.checked_sub(1).map(|before| characters[before]));
            for &character in &rest[..taken] {
                if character == '\n' {
                    lines.push(Line::default());
                } else if let Some(line) = lines.last_mut() {
                    line.code.push(if part == Part::Code { character } else { ' ' });
                    line.comment.push(if part == Part::Comment { character } else { ' ' });
                }
            }
            state = next;
            at += taken;
        }
        let mut source = Self { lines };
        source.mark_tests();
        source
    }

    /// Lines whose code holds any of these words, whole, with the word; lines excused by name are left out.
    pub(crate) fn lines_with<'a>(
        &'a self,
        words: &'a [&'a str],
        rule: &'a str,
    ) -> impl Iterator<Item = (usize, &'a str)> {
        self.lines.iter().enumerate().filter_map(move |(at, line)| {
            let word = words.iter().find(|word| holds_word(&line.code, word))?;
            (!self.is_excused(at, rule)).then_some((at + 1, *word))
        })
    }

    /// Whether the line (from 0), or a comment right above it and its attributes, carries `tidy-allow(rule): why`.
    pub(crate) fn is_excused(&self, at: usize, rule: &str) -> bool {
        let excuse = format!("tidy-allow({rule}): ");
        let leads_in = |line: &&Line| match line.code.trim() {
            "" => !line.comment.trim().is_empty(),
            code => code.starts_with("#["),
        };
        let above = self.lines[..at].iter().rev().take_while(leads_in);
        std::iter::once(&self.lines[at]).chain(above).any(|line| line.comment.contains(&excuse))
    }

    fn mark_tests(&mut self) {
        let mut at = 0;
        while at < self.lines.len() {
            let code = &self.lines[at].code;
            // Not `any(test, …)`: that is also built for others.
            if code.contains("#[cfg(test)]") || code.contains("#[cfg(all(test,") {
                at = self.mark_item(at);
            } else {
                at += 1;
            }
        }
    }

    /// Marks from an attribute to the end of its item; gives back the line after it.
    fn mark_item(&mut self, start: usize) -> usize {
        let mut depth = 0_usize;
        for at in start..self.lines.len() {
            self.lines[at].test = true;
            for character in self.lines[at].code.chars() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 1 => return at + 1,
                    '}' => depth = depth.saturating_sub(1),
                    ';' if depth == 0 => return at + 1,
                    _ => {}
                }
            }
        }
        self.lines.len()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Code,
    Comment,
    Hidden,
}

/// What the next characters are: the state behind them, how many, and which part they belong to.
fn step(state: In, rest: &[char], before: Option<char>) -> (In, usize, Part) {
    let starts = |text: &str| text.chars().enumerate().all(|(at, character)| rest.get(at) == Some(&character));
    match state {
        In::Code if starts("//") => (In::LineComment, 2, Part::Comment),
        In::Code if starts("/*") => (In::BlockComment { depth: 1 }, 2, Part::Comment),
        In::Code if starts("\"") => (In::Text, 1, Part::Code),
        In::Code if starts("'") => (In::Code, character_length(rest), Part::Hidden),
        In::Code => match raw_text_start(rest, before) {
            Some((hashes, length)) => (In::RawText { hashes }, length, Part::Code),
            None => (In::Code, 1, Part::Code),
        },
        In::LineComment if starts("\n") => (In::Code, 1, Part::Code),
        In::LineComment => (state, 1, Part::Comment),
        In::BlockComment { depth: 1 } if starts("*/") => (In::Code, 2, Part::Comment),
        In::BlockComment { depth } if starts("*/") => (In::BlockComment { depth: depth - 1 }, 2, Part::Comment),
        In::BlockComment { depth } if starts("/*") => (In::BlockComment { depth: depth + 1 }, 2, Part::Comment),
        In::BlockComment { .. } => (state, 1, Part::Comment),
        In::Text if starts("\\") => (state, rest.len().min(2), Part::Hidden),
        In::Text if starts("\"") => (In::Code, 1, Part::Code),
        In::RawText { hashes } if starts(&format!("\"{}", "#".repeat(hashes))) => (In::Code, hashes + 1, Part::Code),
        In::Text | In::RawText { .. } => (state, 1, Part::Hidden),
    }
}

/// The length of a character literal, or of the quote alone where it begins a lifetime.
fn character_length(rest: &[char]) -> usize {
    match rest {
        [_, '\\', ..] => rest.iter().skip(3).position(|&character| character == '\'').map_or(1, |at| at + 4),
        [_, _, '\'', ..] => 3,
        _ => 1,
    }
}

/// The hashes of a raw string that begins here, and the length of what opens it.
fn raw_text_start(rest: &[char], before: Option<char>) -> Option<(usize, usize)> {
    if before.is_some_and(is_of_word) {
        return None;
    }
    let prefix = usize::from(matches!(rest, ['b' | 'c', 'r', ..]));
    if rest.get(prefix) != Some(&'r') {
        return None;
    }
    let hashes = rest[prefix + 1..].iter().take_while(|character| **character == '#').count();
    (rest.get(prefix + 1 + hashes) == Some(&'"')).then_some((hashes, prefix + hashes + 2))
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether a text holds a word, with no letter, digit or underscore on either side of it.
pub(crate) fn holds_word(text: &str, word: &str) -> bool {
    let begins_bare = word.starts_with(is_of_word);
    let ends_bare = word.ends_with(is_of_word);
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !(begins_bare && before.is_some_and(is_of_word) || ends_bare && after.is_some_and(is_of_word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::read(text).lines.iter().map(|line| line.code.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn comments_and_quoted_text_are_taken_out() {
        for (text, expected) in [
            ("a // b", "a"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("x // y") // z"#, r#"f("      ")"#),
            (r#"f("x\"y") + g"#, r#"f("    ") + g"#),
            ("f(r#\"a\"b\"#) + g", "f(r#\"   \"#) + g"),
            ("f(br\"a\\\") + g", "f(br\"  \") + g"),
            ("match c { '\"' => 'a', '\\'' => '\\u{1F}' } // x", "match c {     =>    ,      =>          }"),
            ("fn f<'a>(x: &'a str)", "fn f< a>(x: & a str)"),
            ("for r in \"x\"", "for r in \" \""),
            ("\"a\nb // c\"\nd", "\"\n      \"\nd"),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
        assert_eq!(Source::read("a // b").lines[0].comment.trim(), "// b");
    }

    #[test]
    fn test_items_are_marked_to_their_end() {
        let source = Source::read(
            "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() { '}'; }\n}\nfn c() {}\n#[cfg(test)]\nuse d;\nfn e() {}",
        );
        let tests: Vec<bool> = source.lines.iter().map(|line| line.test).collect();
        assert_eq!(tests, [false, true, true, true, true, false, true, true, false]);
    }

    #[test]
    fn words_are_whole() {
        assert!(holds_word("a.sync_all()", "sync_all"));
        assert!(!holds_word("a.sync_alls()", "sync_all") && !holds_word("my_fsync(", "fsync"));
        assert!(holds_word("x!todo!(", "todo!") && holds_word("a::sleep", "::sleep"));
    }

    #[test]
    fn an_excuse_covers_the_line_below_its_comment_and_needs_a_reason() {
        let source = Source::read(
            "// tidy-allow(sleep): it is\n// what is tested\nsleep();\nsleep();\nsleep(); // tidy-allow(sleep):",
        );
        let found: Vec<usize> = source.lines_with(&["sleep"], "sleep").map(|(line, _)| line).collect();
        assert_eq!(found, [4, 5]);
    }
}
