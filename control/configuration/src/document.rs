//! A document's text as entries: keys, values, and where each stands.
//!
//! Anchors, aliases and tags are refused: a configuration that can be read aloud needs none, and without them nothing
//! grows beyond the text.

use std::collections::BTreeMap;

use novacron_control_api::configuration::{Entry, Key, Mistake, Origin, Raw, SECTIONS};
use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::limits::{DEPTH_MAX, MISTAKES_MAX};

/// What is open while the document is walked.
enum Open {
    /// A mapping: the path that leads to it, and the key that waits for its value.
    Mapping { path: String, key: Option<(String, Span)> },
    /// A list of texts under a path.
    List { path: String, at: Span, texts: Vec<String> },
    /// Something that was refused; what is in it is passed over.
    Refused { is_mapping: bool },
}

struct Walk<'a> {
    file: &'a str,
    open: Vec<Open>,
    entries: Vec<Entry>,
    seen: BTreeMap<String, usize>,
    mistakes: Vec<Mistake>,
}

/// The entries of a YAML or JSON text; `file` is its name in messages.
///
/// # Errors
/// What is not a configuration, with line and column. All mistakes that can be told at once, at most
/// [`MISTAKES_MAX`].
pub fn entries(text: &str, file: &str) -> Result<Vec<Entry>, Vec<Mistake>> {
    let mut walk =
        Walk { file, open: Vec::new(), entries: Vec::new(), seen: BTreeMap::new(), mistakes: Vec::new() };
    let mut documents = 0;
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((Event::DocumentStart(_), span)) => {
                documents += 1;
                if documents > 1 {
                    walk.refuse(span, "", "a second document begins here; expected one".into());
                    break;
                }
            }
            Ok((event, span)) => walk.take(event, span),
            Err(error) => {
                let at = *error.marker();
                let what = format!("this is neither YAML nor JSON: {}", error.info());
                walk.refuse(Span::new(at, at), "", what);
                break;
            }
        }
        if walk.mistakes.len() >= MISTAKES_MAX {
            break;
        }
    }
    if walk.mistakes.is_empty() { Ok(walk.entries) } else { Err(walk.mistakes) }
}

impl Walk<'_> {
    fn origin(&self, span: Span) -> Origin {
        Origin::File { path: self.file.to_owned(), line: span.start.line(), column: span.start.col() + 1 }
    }

    fn refuse(&mut self, span: Span, key: &str, what: String) {
        let (origin, key) = (self.origin(span), key.chars().take(200).collect());
        self.mistakes.push(Mistake { origin, key, what });
    }

    fn take(&mut self, event: Event<'_>, span: Span) {
        match event {
            Event::Scalar(_, _, anchor, ref tag) if anchor != 0 || tag.is_some() => {
                self.refuse(span, "", "anchors and tags are not taken; expected a plain value".into());
                self.value_ends();
            }
            Event::Scalar(text, style, ..) => self.scalar(&text, style, span),
            Event::Alias(_) => {
                self.refuse(span, "", "aliases are not taken; expected the value itself".into());
                self.value_ends();
            }
            Event::MappingStart(anchor, tag) => {
                self.mapping(span, anchor != 0 || tag.is_some());
            }
            Event::SequenceStart(anchor, tag) => self.list(span, anchor != 0 || tag.is_some()),
            Event::MappingEnd | Event::SequenceEnd => self.close(),
            _ => {}
        }
    }

    /// The path under which a value that begins now stands; `None` where none may, which was told.
    fn path_of_value(&mut self, span: Span, what: &str) -> Option<String> {
        match self.open.last_mut() {
            Some(Open::Mapping { path, key: Some((key, _)) }) => {
                Some(if path.is_empty() { key.clone() } else { format!("{path}.{key}") })
            }
            Some(Open::Mapping { .. }) => {
                self.refuse(span, "", format!("{what} stands where a key is expected"));
                None
            }
            Some(Open::List { path, .. }) => {
                let path = path.clone();
                self.refuse(span, &path, format!("{what} stands in a list; expected texts"));
                None
            }
            Some(Open::Refused { .. }) => None,
            None => Some(String::new()),
        }
    }

    fn mapping(&mut self, span: Span, marked: bool) {
        let path = self.path_of_value(span, "a mapping");
        let fits = self.open.len() < DEPTH_MAX && !marked;
        match path {
            Some(path) if fits => self.open.push(Open::Mapping { path, key: None }),
            path => {
                if path.is_some() {
                    self.refuse(
                        span,
                        "",
                        "nested too deeply, or anchored; expected sections and keys".into(),
                    );
                }
                self.open.push(Open::Refused { is_mapping: true });
            }
        }
    }

    fn list(&mut self, span: Span, marked: bool) {
        let path = self.path_of_value(span, "a list");
        match path {
            Some(path) if !path.is_empty() && !marked => {
                self.open.push(Open::List { path, at: span, texts: Vec::new() });
            }
            path => {
                if path.is_some() {
                    self.refuse(span, "", "a list stands here; expected sections".into());
                }
                self.open.push(Open::Refused { is_mapping: false });
            }
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, span: Span) {
        let quoted = style != ScalarStyle::Plain;
        match self.open.last_mut() {
            Some(Open::Mapping { path, key: key @ None }) => {
                let whole = if path.is_empty() { text.to_owned() } else { format!("{path}.{text}") };
                *key = Some((text.to_owned(), span));
                if let Some(line) = self.seen.insert(whole.clone(), span.start.line()) {
                    self.refuse(
                        span,
                        &whole,
                        format!("the key stands in line {line} already; expected once"),
                    );
                }
            }
            Some(Open::Mapping { .. }) => {
                if let Some(path) = self.path_of_value(span, "a value") {
                    self.leaf(path, text, quoted, span);
                }
                self.value_ends();
            }
            Some(Open::List { texts, .. }) => texts.push(text.to_owned()),
            Some(Open::Refused { .. }) => {}
            // An empty document, or one that holds comments only, changes nothing.
            None if !quoted && is_null(text) => {}
            None => self.refuse(span, "", "a single value stands here; expected sections".into()),
        }
    }

    fn leaf(&mut self, path: String, text: &str, quoted: bool, span: Span) {
        let null = !quoted && is_null(text);
        if SECTIONS.iter().any(|(section, _)| *section == path) {
            // `system:` with nothing below it is an empty section.
            if !null {
                self.refuse(span, &path, "this is a section; expected keys below it".into());
            }
            return;
        }
        if null && let Some(key) = Key::find(&path) {
            let what = format!("there is no value; expected {}, or leave the key out", key.expected());
            self.refuse(span, &path, what);
            return;
        }
        let raw = if quoted { Raw::Quoted(text.to_owned()) } else { Raw::Plain(text.to_owned()) };
        let origin = self.origin(span);
        self.entries.push(Entry { path, raw, origin });
    }

    fn close(&mut self) {
        if let Some(Open::List { path, at, texts }) = self.open.pop() {
            let origin = self.origin(at);
            self.entries.push(Entry { path, raw: Raw::List(texts), origin });
        }
        self.value_ends();
    }

    /// The key that waited has its value.
    fn value_ends(&mut self) {
        match self.open.last_mut() {
            Some(Open::Mapping { key, .. }) => *key = None,
            Some(Open::Refused { is_mapping: true | false } | Open::List { .. }) | None => {}
        }
    }
}

/// How YAML's core schema writes nothing (YAML 1.2.2, section 10.2.1.1).
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(text: &str) -> Vec<String> {
        entries(text, "f").unwrap_err().iter().map(Mistake::to_string).collect()
    }

    #[test]
    fn keys_have_their_places() {
        let read = entries("# a comment\nsystem:\n  node_id: a\ndwcp:\n  transport: {min_streams: 8}\n", "f");
        let read = read.unwrap();
        assert_eq!(read[0].path, "system.node_id");
        assert_eq!(read[0].origin.to_string(), "f:3:12");
        assert_eq!(read[1].path, "dwcp.transport.min_streams");
        assert_eq!(read[1].raw, Raw::Plain("8".into()));
        assert_eq!(read[1].origin.to_string(), "f:5:28");
    }

    #[test]
    fn json_is_read_with_places_and_tabs() {
        let read = entries("{\n\t\"system\": {\n\t\t\"node_id\": \"a\"\n\t},\n\t\"network\": {\"peers\": [\"tcp:a:1\", \"tcp:b:2\"], \"bind_port\": 1}\n}\n", "f").unwrap();
        assert_eq!(read[0].raw, Raw::Quoted("a".into()));
        assert_eq!(read[0].origin.to_string(), "f:3:14");
        assert_eq!(read[1].raw, Raw::List(vec!["tcp:a:1".into(), "tcp:b:2".into()]));
        assert_eq!(read[2].raw, Raw::Plain("1".into()));
    }

    #[test]
    fn nothing_is_nothing() {
        for text in ["", "# only a comment\n", "---\n", "system:\nnetwork: ~\n", "{}"] {
            assert_eq!(entries(text, "f"), Ok(Vec::new()), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_told_with_its_place() {
        for (text, place, says) in [
            ("system:\n  node_id: a\n  node_id: b\n", "f:3:3", "line 2 already"),
            ("system: 5\n", "f:1:9", "this is a section"),
            ("system:\n  node_id:\n", "f:2:", "there is no value; expected"),
            ("- a\n", "f:1:1", "expected sections"),
            ("just words\n", "f:1:1", "expected sections"),
            ("a: {\n", "f:2:1", "neither YAML nor JSON"),
            ("system: &x {node_id: a}\n", "f:1:", "anchored"),
            ("system: {node_id: &x a}\nnetwork: *x\n", "f:1:", "anchors and tags"),
            ("a: *x\n", "f:1:", "neither YAML nor JSON"),
            ("system: {node_id: !!str a}\n", "f:1:", "anchors and tags"),
            ("network: {peers: [[a]]}\n", "f:1:19", "stands in a list"),
            ("network: {peers: [{a: b}]}\n", "f:1:19", "stands in a list"),
            ("{a: b}: c\n", "f:1:1", "where a key is expected"),
            ("a: 1\n---\nb: 2\n", "f:2:1", "a second document"),
            ("a: {b: {c: {d: {e: {f: {g: {h: {i: 1}}}}}}}}\n", "f:1:", "nested too deeply"),
        ] {
            let told = told(text);
            assert!(told[0].starts_with(place) && told[0].contains(says), "{text:?}: {told:?}");
        }
    }

    proptest! {
        /// Total: any text gives entries or mistakes, and not more of either than the text is long.
        #[test]
        fn any_text_ends(text in "[a-c:{}\\[\\],\"'\\-&*!|>#~ \n\t0-9]{0,120}|\\PC{0,60}") {
            match entries(&text, "f") {
                Ok(entries) => prop_assert!(entries.len() <= text.len()),
                Err(mistakes) => prop_assert!((1..=MISTAKES_MAX + 1).contains(&mistakes.len())),
            }
        }

        /// What JSON writes is read back under its keys.
        #[test]
        fn json_of_any_texts_is_read_back(a in "\\PC{0,30}", b in 0u64..1_000_000) {
            let text = serde_json::json!({"system": {"node_id": a}, "network": {"bind_port": b}}).to_string();
            let read = entries(&text, "f").unwrap();
            prop_assert!(read.iter().any(|entry| entry.raw == Raw::Quoted(a.clone())));
            prop_assert!(read.iter().any(|entry| entry.raw == Raw::Plain(b.to_string())));
        }
    }
}
