//! SQLite under writes: its own shell runs transactions, and what was committed is known here.

use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::drive::{Report, Work};
use crate::limits::{
    DATABASE_HISTORY_ROWS, DATABASE_ROWS_A_COMMIT, DATABASE_ROWS_A_LOOK, DATABASE_ROWS_A_TRANSACTION,
    DATABASE_TEXT_BYTES, PROGRAM_DEBT_MAX, SQL_LINE_BYTES_MAX,
};
use crate::pace::MILLIONTHS;
use crate::page::{Kind, Page, PageId};
use crate::program;
use crate::random::Random;

const FILE: &str = "/run/work.db";

pub(crate) struct Database {
    shell: Child,
    input: BufReader<ChildStdout>,
    output: BufWriter<ChildStdin>,
    seed: u64,
    /// How often each row was written, as far as it is committed.
    versions: Vec<u32>,
    /// Transactions committed.
    transactions: u64,
    /// Number of the last request, so that no answer is taken for another's.
    asked: u64,
    random: Random,
    page: Box<Page>,
}

impl Database {
    /// Makes a database whose rows hold about `bytes` and starts the shell.
    ///
    /// # Errors
    /// When the shell does not start or refuses.
    pub(crate) fn start(seed: u64, bytes: u64) -> Result<Self> {
        let mut shell = program::start(
            program::command("sqlite3")?
                .args(["-batch", "-bail", "-noheader", "-list", FILE])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        )?;
        let (input, output) = (shell.stdout.take(), shell.stdin.take());
        let (Some(input), Some(output)) = (input, output) else { bail!("sqlite3 was started without pipes") };
        let rows = usize::try_from((bytes / DATABASE_TEXT_BYTES as u64).max(1)).unwrap_or(usize::MAX);
        let mut database = Self {
            shell,
            input: BufReader::new(input),
            output: BufWriter::with_capacity(64 << 10, output),
            seed,
            versions: vec![0; rows],
            transactions: 0,
            asked: 0,
            random: Random::new(seed),
            page: Box::new(Page::ZERO),
        };
        // The kind of database that a service keeps: a log ahead of the file, an index beside the table.
        database.ask(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-8192;\n\
             CREATE TABLE rows(id INTEGER PRIMARY KEY, version INTEGER NOT NULL, text TEXT NOT NULL);\n\
             CREATE TABLE history(slot INTEGER PRIMARY KEY, tx INTEGER NOT NULL, id INTEGER NOT NULL);\n\
             CREATE INDEX history_of_row ON history(id, tx);\n\
             BEGIN;\n",
        )?;
        for id in 0..rows {
            if id > 0 && id.is_multiple_of(DATABASE_ROWS_A_COMMIT) {
                database.ask("COMMIT; BEGIN;\n")?;
            }
            let text = database.text(id, 0);
            writeln!(database.output, "INSERT INTO rows VALUES({id},0,'{text}');")
                .context("writing to sqlite3")?;
        }
        database.ask("COMMIT;\n")?;
        Ok(database)
    }

    /// Rows of the table that are verified.
    pub(crate) fn rows(&self) -> u64 {
        self.versions.len() as u64
    }

    /// What belongs in a row in a version: letters, blanks and full stops alone, so that it needs no quoting.
    fn text(&mut self, id: usize, version: u32) -> String {
        self.page.write(PageId { index: id as u64, generation: version, seed: self.seed }, Kind::Text);
        let bytes = self.page.bytes();
        // A page begins with numbers; its words come after.
        let begin = 64;
        String::from_utf8_lossy(&bytes[begin..begin + DATABASE_TEXT_BYTES]).into_owned()
    }

    /// Runs statements and returns the lines that they print.
    fn ask(&mut self, statements: &str) -> Result<Vec<String>> {
        self.asked += 1;
        let end = format!("done:{}", self.asked);
        // The shell ends at the first error (-bail): that it answers tells of success.
        writeln!(self.output, "{statements}SELECT '{end}';").context("writing to sqlite3")?;
        self.output.flush().context("writing to sqlite3")?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.input.by_ref().take(SQL_LINE_BYTES_MAX).read_line(&mut line);
            if read.context("reading from sqlite3")? == 0 {
                let status = self.shell.wait().context("looking after sqlite3")?;
                bail!("sqlite3 has ended: {status}; its messages are on the console");
            }
            let line =
                line.strip_suffix('\n').context("sqlite3 ends in the middle of a line, or it is too long")?;
            if line == end {
                return Ok(lines);
            }
            lines.push(line.to_owned());
        }
    }
}

impl Work for Database {
    fn unit(&self) -> &'static str {
        "transactions"
    }

    fn step(&self) -> u64 {
        MILLIONTHS
    }

    fn burst(&self) -> u64 {
        1
    }

    fn debt_max(&self) -> Duration {
        PROGRAM_DEBT_MAX
    }

    /// A transaction writes some rows anew and notes each in the history, which keeps its length.
    fn run(&mut self, steps: u64, _: &mut Report) -> Result<()> {
        for _ in 0..steps {
            let mut statements = String::from("BEGIN IMMEDIATE;\n");
            let mut written = Vec::new();
            for _ in 0..DATABASE_ROWS_A_TRANSACTION {
                let id = (self.random.next() % self.rows()) as usize;
                if written.contains(&id) {
                    continue;
                }
                written.push(id);
                let version = self.versions[id].wrapping_add(1);
                let text = self.text(id, version);
                let slot = self.random.next() % DATABASE_HISTORY_ROWS;
                let transaction = self.transactions + 1;
                statements += &format!(
                    "UPDATE rows SET version={version},text='{text}' WHERE id={id};\n\
                     INSERT OR REPLACE INTO history VALUES({slot},{transaction},{id});\n"
                );
            }
            let printed = self.ask(&(statements + "COMMIT;\n"))?;
            ensure!(printed.is_empty(), "sqlite3 printed {printed:?} in a transaction");
            self.transactions += 1;
            for id in written {
                self.versions[id] = self.versions[id].wrapping_add(1);
            }
        }
        Ok(())
    }

    /// Lets SQLite check the whole file, and reads every row back.
    fn verify(&mut self, bad: &mut Report) -> Result<u64> {
        let check = self.ask("PRAGMA integrity_check;\n")?;
        if check != ["ok"] {
            bad.bad(&format!("integrity_check={check:?}"));
        }
        let rows = self.versions.len();
        for begin in (0..rows).step_by(DATABASE_ROWS_A_LOOK) {
            let end = rows.min(begin + DATABASE_ROWS_A_LOOK);
            let select = format!(
                "SELECT id, version, text FROM rows WHERE id >= {begin} AND id < {end} ORDER BY id;\n"
            );
            let lines = self.ask(&select)?;
            for (at, id) in (begin..end).enumerate() {
                let version = self.versions[id];
                let expected = format!("{id}|{version}|{}", self.text(id, version));
                if lines.get(at) != Some(&expected) {
                    bad.bad(&format!("row={id} version={version}"));
                }
            }
            if lines.len() != end - begin {
                bad.bad(&format!("rows={} from={begin} to={end}", lines.len()));
            }
        }
        Ok(self.rows())
    }

    fn corrupt(&mut self) -> Result<u64> {
        let id = self.random.next() % self.rows();
        self.ask(&format!("UPDATE rows SET text=text || '!' WHERE id={id};\n"))?;
        Ok(id)
    }
}
