//! Lists in pages, so that no query answers with everything.

use std::fmt;
use std::str::FromStr;

use crate::error::StoreError;
use crate::limits::{PAGE_ITEMS, PAGE_ITEMS_MAX};
use crate::statement::Value;

/// Where a page begins: after this item. Written as `TIME:NAME`; callers pass it on and read nothing from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub(crate) at_ms: i64,
    pub(crate) name: String,
}

impl Cursor {
    /// Before the newest item.
    fn start() -> Self {
        Self { at_ms: i64::MAX, name: String::new() }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.at_ms, self.name)
    }
}

impl FromStr for Cursor {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        text.split_once(':')
            .and_then(|(at_ms, name)| Some(Self { at_ms: at_ms.parse().ok()?, name: name.to_owned() }))
            .ok_or_else(|| StoreError::Unfit {
                what: "a page begins at a cursor that a page before it gave".into(),
            })
    }
}

/// Which part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where the page before ended; `None`: the newest.
    pub after: Option<Cursor>,
    /// Items at most, 1 to [`PAGE_ITEMS_MAX`]; others are brought into this range.
    pub items_max: u32,
}

impl Default for Page {
    fn default() -> Self {
        Self { after: None, items_max: PAGE_ITEMS }
    }
}

impl Page {
    /// The first page, with so many items at most.
    pub fn of(items_max: u32) -> Self {
        Self { after: None, items_max }
    }

    pub(crate) fn limit(&self) -> u32 {
        self.items_max.clamp(1, PAGE_ITEMS_MAX)
    }

    /// Time and name after which the page begins, and its length plus one: the one more says whether there is a next.
    pub(crate) fn values(&self) -> [Value; 3] {
        let cursor = self.after.clone().unwrap_or_else(Cursor::start);
        [cursor.at_ms.into(), cursor.name.into(), (self.limit() + 1).into()]
    }
}

/// A page's items, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Paged<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Cursor>,
}

impl<T> Paged<T> {
    /// Takes what a query of `limit + 1` items answered.
    pub(crate) fn new(mut items: Vec<(Cursor, T)>, limit: u32) -> Self {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next = items.last().filter(|_| more).map(|(cursor, _)| cursor.clone());
        Self { items: items.into_iter().map(|(_, item)| item).collect(), next }
    }
}
