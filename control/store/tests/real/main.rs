//! The store with what it stands on in earnest: SQLite's files, a PostgreSQL and a Redis of Debian's, started here in
//! temporary folders, over TLS. The same tests run over both databases.

mod cache;
mod postgres;
mod processes;
mod servers;
mod sqlite;
mod suite;
