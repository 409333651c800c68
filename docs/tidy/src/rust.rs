//! Rust source, as far as rules need to understand it: what is code, and what is comment or text.

/// A source file with the same lines twice: once with only its code, once with only its comments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Code; comments and the contents of literals are gone.
    pub code: Vec<String>,
    /// Comments, markers included.
    pub comments: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text,
    RawText { hashes: usize },
}

/// Takes a source file apart.
pub fn parts(source: &str) -> Parts {
    let chars: Vec<char> = source.chars().collect();
    let mut parts = Parts { code: vec![String::new()], comments: vec![String::new()] };
    let mut state = In::Code;
    let mut i = 0;
    while i < chars.len() {
        let (c, next) = (chars[i], chars.get(i + 1).copied());
        if c == '\n' {
            if state == In::LineComment {
                state = In::Code;
            }
            parts.code.push(String::new());
            parts.comments.push(String::new());
            i += 1;
            continue;
        }
        let mut taken = 1;
        match state {
            In::Code => match (c, next) {
                ('/', Some('/')) => {
                    state = In::LineComment;
                    taken = 0;
                }
                ('/', Some('*')) => (state, taken) = (In::BlockComment { depth: 1 }, 2),
                ('"', _) => state = In::Text,
                ('r', _) if !ends_in_word(&parts.code) && raw_start(&chars[i + 1..]).is_some() => {
                    let hashes = raw_start(&chars[i + 1..]).unwrap_or(0);
                    (state, taken) = (In::RawText { hashes }, 2 + hashes);
                }
                ('\'', _) => taken = quoted(&chars[i..]),
                _ => push(&mut parts.code, c),
            },
            In::LineComment => push(&mut parts.comments, c),
            In::BlockComment { depth } => match (c, next) {
                ('*', Some('/')) => {
                    state = if depth == 1 { In::Code } else { In::BlockComment { depth: depth - 1 } };
                    taken = 2;
                }
                ('/', Some('*')) => (state, taken) = (In::BlockComment { depth: depth + 1 }, 2),
                _ => push(&mut parts.comments, c),
            },
            // What follows a backslash belongs to it, but for a line's end, which is counted above.
            In::Text => match (c, next) {
                ('\\', Some(after)) if after != '\n' => taken = 2,
                ('"', _) => state = In::Code,
                _ => {}
            },
            In::RawText { hashes } => {
                let closing = chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count();
                if c == '"' && closing == hashes {
                    (state, taken) = (In::Code, 1 + hashes);
                }
            }
        }
        i += taken;
    }
    parts
}

fn push(lines: &mut [String], c: char) {
    if let Some(line) = lines.last_mut() {
        line.push(c);
    }
}

fn ends_in_word(lines: &[String]) -> bool {
    // `b` may stand before a raw text's `r`; any other word character makes it the end of a name.
    lines.last().and_then(|line| line.chars().last()).is_some_and(|c| c != 'b' && is_word(c))
}

/// Hashes before the quote of a raw text, where one starts.
fn raw_start(rest: &[char]) -> Option<usize> {
    let hashes = rest.iter().take_while(|c| **c == '#').count();
    (rest.get(hashes) == Some(&'"')).then_some(hashes)
}

/// Characters of the literal that a quote opens; 1 for a lifetime.
fn quoted(rest: &[char]) -> usize {
    match rest {
        ['\'', '\\', _, tail @ ..] => 3 + tail.iter().take_while(|c| **c != '\'').count() + 1,
        ['\'', _, '\'', ..] => 3,
        _ => 1,
    }
}

/// Whether a character belongs to a name.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands in `line` by itself, not inside a longer name.
pub fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_texts_are_no_code() {
        let source = "let a = \"unsafe // no\"; // unsafe\nlet b = r#\"unsafe \" \"#; /* x /* y */ unsafe */ let c;\nlet d = '\"'; let e: &'static str = b\"\\\"unsafe\";\nlet f = '\\u{1F600}'; unsafe {}";
        let parts = parts(source);
        assert_eq!(parts.code.len(), 4);
        assert_eq!(parts.code[0], "let a = ; ");
        assert_eq!(parts.comments[0], "// unsafe");
        assert_eq!(parts.code[1], "let b = ;  let c;");
        assert!(!has_word(&parts.code[2], "unsafe"), "{}", parts.code[2]);
        assert!(has_word(&parts.code[3], "unsafe"), "{}", parts.code[3]);
    }

    #[test]
    fn lines_stay_in_step() {
        let source = "a\n\"two\nlines \\\n\"\n/* three\nfour */\nb";
        let parts = parts(source);
        assert_eq!(parts.code.len(), source.lines().count());
        assert_eq!(parts.code[6], "b");
    }

    #[test]
    fn words_stand_alone() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(!has_word("unsafe_code", "unsafe"));
        assert!(!has_word("not_unsafe", "unsafe"));
    }
}
