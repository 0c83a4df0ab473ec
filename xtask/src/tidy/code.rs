//! Rust code with its comments and literals blanked out, and with its tests marked.
//!
//! This is enough of a lexer for rules about words: what stands in a comment, a string or a
//! character is not code. It does not parse; rustfmt's layout and one statement per line are taken
//! for granted.

/// The code of one file.
#[derive(Debug)]
pub(crate) struct Code {
    /// As long as the text, line by line.
    blanked: String,
    /// Byte ranges of items under `#[cfg(test)]`.
    tests: Vec<std::ops::Range<usize>>,
    is_test_file: bool,
}

/// One line of code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Counted from one.
    pub(crate) number: usize,
    pub(crate) code: &'a str,
    /// Only compiled for tests.
    pub(crate) is_test: bool,
}

impl Code {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let blanked = blank(text);
        let tests = test_items(&blanked);
        Self { blanked, tests, is_test_file: is_test_file(path) }
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let mut start = 0;
        self.blanked.split_inclusive('\n').enumerate().map(move |(index, line)| {
            let at = start;
            start += line.len();
            let is_test = self.is_test_file || self.tests.iter().any(|item| item.contains(&at));
            Line { number: index + 1, code: line.trim_end(), is_test }
        })
    }
}

/// Cargo's test and benchmark targets, and modules of tests in a file of their own.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.split('/').any(|part| part == "tests" || part == "benches")
}

fn test_items(blanked: &str) -> Vec<std::ops::Range<usize>> {
    let starts = blanked.match_indices("#[cfg(test)]").map(|(start, _)| start);
    starts.map(|start| start..start + item_len(&blanked[start..])).collect()
}

/// The length of an item: to its `;`, or to the brace that closes its first one.
fn item_len(code: &str) -> usize {
    let mut depth = 0usize;
    for (index, byte) in code.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return index + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return index + 1,
            _ => {}
        }
    }
    code.len()
}

/// Puts blanks in the place of comments and literals; line breaks stay.
fn blank(text: &str) -> String {
    let mut blanked = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(next) = rest.chars().next() {
        let hidden = hidden_len(rest, previous);
        let len = if hidden > 0 { hidden } else { next.len_utf8() };
        let (piece, after) = rest.split_at(len);
        if hidden > 0 {
            blanked.extend(piece.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        } else {
            blanked.push(next);
        }
        previous = next;
        rest = after;
    }
    blanked
}

/// The length of the comment or literal that `rest` begins with; zero if it begins with code.
fn hidden_len(rest: &str, previous: char) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_len(rest);
    }
    let in_word = previous.is_alphanumeric() || previous == '_';
    match rest.as_bytes()[0] {
        b'"' => quoted_len(rest, '"'),
        b'\'' if is_character(rest) => quoted_len(rest, '\''),
        b'r' | b'b' | b'c' if !in_word => raw_string_len(rest),
        _ => 0,
    }
}

/// Block comments nest.
fn block_comment_len(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0usize);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if here.starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
        } else {
            at += 1;
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted_len(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (index, next) in rest.char_indices().skip(1) {
        match next {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if next == quote => return index + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Tells `'a'` and `'\n'` from the lifetime `'a`.
fn is_character(rest: &str) -> bool {
    let mut after_quote = rest.chars().skip(1);
    match after_quote.next() {
        Some('\\') => true,
        Some(_) => after_quote.next() == Some('\''),
        None => false,
    }
}

/// `r"…"`, `r#"…"#` and so on, with `b` or `c` before them.
fn raw_string_len(rest: &str) -> usize {
    let unprefixed = rest.strip_prefix(['b', 'c']).unwrap_or(rest);
    let Some(opening) = unprefixed.strip_prefix('r') else { return 0 };
    let hashes = opening.len() - opening.trim_start_matches('#').len();
    let Some(content) = opening[hashes..].strip_prefix('"') else { return 0 };
    let closing = format!("\"{}", "#".repeat(hashes));
    let Some(end) = content.find(&closing) else { return rest.len() };
    rest.len() - content.len() + end + closing.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        assert_eq!(blank(text), expect, "of {text}");
        assert_eq!(blank(text).len(), text.len());
    }

    #[test]
    fn comments_are_blanked() {
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check("/// fn f()\nx", "          \nx");
    }

    #[test]
    fn literals_are_blanked() {
        check("f(\"a\\\"b\", x)", "f(      , x)");
        check("f('a', '\\'', '\"')", "f(   ,     ,    )");
        check("f(r#\"a\"b\"#, r\"c\", br\"d\")", "f(        ,     ,      )");
        check("\"ö\" a", "     a");
        check("\"a\nb\" c", "  \n   c");
    }

    #[test]
    fn code_that_looks_like_a_literal_stays() {
        check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
        check("for r in cr {}", "for r in cr {}");
        check("r#type", "r#type");
    }

    fn test_lines(path: &str, text: &str) -> Vec<usize> {
        let code = Code::new(path, text);
        code.lines().filter(|line| line.is_test).map(|line| line.number).collect()
    }

    #[test]
    fn items_under_cfg_test_are_tests() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() { \"}\" }\n}\nfn c() {}\n";
        assert_eq!(test_lines("src/a.rs", text), [2, 3, 4, 5]);
        assert_eq!(test_lines("src/a.rs", "#[cfg(test)]\nmod tests;\nfn c() {}\n"), [1, 2]);
    }

    #[test]
    fn test_files_are_tests() {
        for path in
            ["crates/a/tests/it.rs", "crates/a/src/window/tests.rs", "tests/bench/src/main.rs"]
        {
            assert_eq!(test_lines(path, "fn a() {}\n"), [1], "{path}");
        }
        assert!(test_lines("crates/a/src/contests.rs", "fn a() {}\n").is_empty());
    }
}
