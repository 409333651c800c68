use proptest::prelude::*;
use roxmltree::{Document, Node, ParsingOptions};

use super::*;
use crate::fixture;

/// The page as XML: whatever is not closed, not escaped or not a character is an error.
fn parsed(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, options).unwrap_or_else(|error| panic!("{error}\n{page}"))
}

fn elements<'a>(document: &'a Document<'_>, name: &str) -> Vec<Node<'a, 'a>> {
    document.descendants().filter(|node| node.has_tag_name(name)).collect()
}

fn text(node: Node<'_, '_>) -> String {
    node.descendants().filter(Node::is_text).filter_map(|node| node.text()).collect()
}

#[test]
fn the_page_opens_without_a_network_and_runs_nothing() {
    let page = render(&fixture::results());
    let document = parsed(&page);
    for forbidden in ["script", "iframe", "img", "object", "use", "image"] {
        assert!(elements(&document, forbidden).is_empty(), "{forbidden}");
    }
    for node in document.descendants() {
        for attribute in node.attributes() {
            assert!(!attribute.name().starts_with("on"), "{attribute:?}");
            if ["href", "src"].contains(&attribute.name()) {
                assert!(attribute.value().starts_with('#') || attribute.value() == "data:,", "{attribute:?}");
            }
        }
    }
    assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
}

#[test]
fn links_lead_somewhere_and_no_identifier_stands_twice() {
    let page = render(&fixture::results());
    let document = parsed(&page);
    let mut identifiers: Vec<&str> = document.descendants().filter_map(|node| node.attribute("id")).collect();
    let count = identifiers.len();
    identifiers.sort_unstable();
    identifiers.dedup();
    assert_eq!(identifiers.len(), count);
    let mut wanted: Vec<&str> = Vec::new();
    for node in document.descendants() {
        wanted.extend(node.attribute("href").and_then(|href| href.strip_prefix('#')));
        wanted.extend(node.attribute("aria-labelledby").into_iter().flat_map(str::split_whitespace));
    }
    for name in wanted {
        assert!(identifiers.binary_search(&name).is_ok(), "{name}");
    }
}

#[test]
fn every_drawing_has_words_and_every_run_that_counts_a_dot() {
    let results = fixture::results();
    let page = render(&results);
    let document = parsed(&page);
    for drawing in elements(&document, "svg").into_iter().filter(|node| node.attribute("role") == Some("img"))
    {
        let words = |name: &str| drawing.children().find(|node| node.has_tag_name(name)).map(text);
        assert!(words("title").is_some_and(|text| !text.is_empty()));
        assert!(words("desc").is_some_and(|text| text.len() > 20));
    }
    for (index, scenario) in results.scenarios.iter().enumerate() {
        let id = format!("{}-plot-0-title", anchor(index));
        let title = document.descendants().find(|node| node.attribute("id") == Some(&id)).unwrap();
        let plot = title.parent().unwrap();
        let dots = plot.descendants().filter(|node| node.attribute("class") == Some("dot")).count();
        assert_eq!(dots, scenario.runs.iter().filter(|run| run.counts()).count());
    }
}

#[test]
fn what_does_not_count_says_why() {
    let page = render(&fixture::results());
    let document = parsed(&page);
    let all = text(document.root_element());
    for part in [
        "timed out: not done within the limit of 60.0 s, given up",
        "void: the guest achieved 71 % of its set rate",
        "failed: QEMU: postcopy is refused: userfaultfd <unavailable> & no \"way\" around it\u{fffd}[0m",
        "skipped: zstd is not installed",
        "BAD memory in 1 of 5",
        "Intel(R) Xeon(R)",
        "with changes",
    ] {
        assert!(all.contains(part), "{part}");
    }
    let interrupted = Results { ended_at: None, ..fixture::results() };
    assert!(render(&interrupted).contains("The measurement was interrupted"));
}

#[test]
fn the_page_is_written_where_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    // To look at it: NOVACRON_PAGE=page.html cargo test -p novacron-bench the_page_is_written
    let kept = std::env::var_os("NOVACRON_PAGE").map(std::path::PathBuf::from);
    let path = kept.unwrap_or_else(|| folder.path().join("report.html"));
    write(&fixture::results(), &path).unwrap();
    assert!(fs::read_to_string(&path).unwrap().starts_with("<!DOCTYPE html>"));
    let error = write(&fixture::results(), &folder.path().join("nowhere/report.html")).unwrap_err();
    assert!(format!("{error:#}").contains("not affected"), "{error:#}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_results_make_a_well_formed_page_that_means_what_the_texts_say(results in fixture::any_results()) {
        let page = render(&results);
        let document = parsed(&page);
        prop_assert!(elements(&document, "script").is_empty());
        prop_assert!(elements(&document, "b").iter().all(|node| node.children().all(|child| child.is_text())));
        for (index, scenario) in results.scenarios.iter().enumerate() {
            let id = format!("{}-title", anchor(index));
            let title = document.descendants().find(|node| node.attribute("id") == Some(&id)).unwrap();
            // A reader makes one line feed of each line end.
            let expected: String =
                scenario.name.chars().map(|c| if allowed(c) { c } else { char::REPLACEMENT_CHARACTER }).collect();
            let expected = expected.replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(text(title), expected);
        }
        for node in elements(&document, "svg").iter().flat_map(|svg| svg.descendants()) {
            for attribute in node.attributes().filter(|one| ["x", "y", "x1", "x2", "y1", "y2", "cx", "d"].contains(&one.name())) {
                let numbers = attribute.value().split(|c: char| c.is_ascii_alphabetic() && c != 'N' && c != 'i' || c == ' ');
                prop_assert!(numbers.filter(|one| !one.is_empty()).all(|one| one.parse().is_ok_and(f64::is_finite)), "{attribute:?}");
            }
        }
    }
}
