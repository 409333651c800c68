//! Statements as both databases take them: the same text, the same three kinds of values.
//!
//! Parameters are `$1`, `$2`, ... as in PostgreSQL; SQLite's side writes them `?1`. Whatever goes beyond text, whole
//! numbers and NULL (times, digests, records) is one of these, so that nothing is spelled twice.

use crate::error::StoreError;

/// A value of a parameter or a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// NULL.
    Null,
    /// A 64-bit whole number: BIGINT.
    Int(i64),
    /// Text, without NUL.
    Text(String),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

/// Numbers that a BIGINT cannot hold become its largest: they are measures, and such a measure is "more than enough".
impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// What is expected of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It answers with rows.
    Query,
    /// It changes any number of rows.
    Write,
    /// It changes exactly one row, or the whole batch is undone: somebody else was there first.
    WriteOne,
}

/// One statement with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// Text with `$1`, `$2`, ...; always a constant, so values never become text of a statement.
    pub(crate) sql: &'static str,
    /// Values, in order.
    pub(crate) values: Vec<Value>,
    /// What is expected.
    pub(crate) kind: Kind,
}

impl Statement {
    pub(crate) fn query(sql: &'static str, values: Vec<Value>) -> Self {
        Self { sql, values, kind: Kind::Query }
    }

    pub(crate) fn write(sql: &'static str, values: Vec<Value>) -> Self {
        Self { sql, values, kind: Kind::Write }
    }

    pub(crate) fn write_one(sql: &'static str, values: Vec<Value>) -> Self {
        Self { sql, values, kind: Kind::WriteOne }
    }
}

/// What a statement gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Rows of a query.
    pub(crate) rows: Vec<Row>,
    /// Rows that a write changed.
    pub(crate) changed: u64,
}

/// What came of a batch that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    /// All of it is stored; an answer for each statement.
    All(Vec<Answer>),
    /// None of it is: a [`Kind::WriteOne`] did not find its row, or a key was taken.
    Undone,
}

/// One row of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row(pub(crate) Vec<Value>);

impl Row {
    fn unfit(&self, column: usize, wanted: &str) -> StoreError {
        StoreError::Damaged {
            what: format!("column {column} of a row is {:?}, not {wanted}", self.0.get(column)),
        }
    }

    /// The text in a column.
    pub(crate) fn text(&self, column: usize) -> Result<&str, StoreError> {
        match self.0.get(column) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(self.unfit(column, "text")),
        }
    }

    /// The text in a column, or nothing where it is NULL.
    pub(crate) fn optional_text(&self, column: usize) -> Result<Option<&str>, StoreError> {
        match self.0.get(column) {
            Some(Value::Null) => Ok(None),
            _ => self.text(column).map(Some),
        }
    }

    /// The number in a column.
    pub(crate) fn int(&self, column: usize) -> Result<i64, StoreError> {
        match self.0.get(column) {
            Some(Value::Int(number)) => Ok(*number),
            _ => Err(self.unfit(column, "a number")),
        }
    }

    /// The number in a column that is never negative.
    pub(crate) fn count(&self, column: usize) -> Result<u64, StoreError> {
        u64::try_from(self.int(column)?).map_err(|_| self.unfit(column, "a number from 0"))
    }

    /// The number in a column that is never negative, or nothing where it is NULL.
    pub(crate) fn optional_count(&self, column: usize) -> Result<Option<u64>, StoreError> {
        match self.0.get(column) {
            Some(Value::Null) => Ok(None),
            _ => self.count(column).map(Some),
        }
    }

    /// The JSON document in a column.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, column: usize) -> Result<T, StoreError> {
        serde_json::from_str(self.text(column)?).map_err(|error| StoreError::Damaged {
            what: format!("a stored record is not what it should be: {error}"),
        })
    }
}
