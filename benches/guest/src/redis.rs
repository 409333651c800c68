//! A redis server under load. Its values are random bytes, of another length each time; what was acknowledged is
//! known here, and what is read is compared with it.

use std::io::{BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::drive::{Report, Work};
use crate::limits::{
    PAGE_BYTES, PROGRAM_DEBT_MAX, PROGRAM_WAIT, REDIS_BURST_REQUESTS, REDIS_VALUE_BYTES_MIN,
};
use crate::pace::MILLIONTHS;
use crate::page::{Kind, Page, PageId};
use crate::program;
use crate::random::Random;
use crate::resp::{Reply, read_reply, write_command};

const SOCKET: &str = "/run/redis.sock";

pub(crate) struct Redis {
    server: Child,
    input: BufReader<UnixStream>,
    output: BufWriter<UnixStream>,
    seed: u64,
    /// How often each key was written.
    generations: Vec<u32>,
    random: Random,
    page: Box<Page>,
}

/// A request whose reply is not read yet.
enum Asked {
    Set(usize),
    /// The key, and the generation that must come back.
    Get(usize, u32),
}

impl Redis {
    /// Starts the server and writes every key once. The set of keys holds about `bytes`.
    ///
    /// # Errors
    /// When the server does not come up or refuses.
    pub(crate) fn start(seed: u64, bytes: u64) -> Result<Self> {
        let mut server = program::start(program::command("redis-server")?.args([
            "--port",
            "0",
            "--unixsocket",
            SOCKET,
            "--save",
            "",
            "--appendonly",
            "no",
            "--loglevel",
            "warning",
            "--dir",
            "/run",
        ]))?;
        let socket = connect(&mut server)?;
        let mean = (REDIS_VALUE_BYTES_MIN + PAGE_BYTES) as u64 / 2;
        let keys = usize::try_from((bytes / mean).max(1)).unwrap_or(usize::MAX);
        let mut redis = Self {
            server,
            input: BufReader::new(socket.try_clone().context("sharing redis's socket")?),
            output: BufWriter::with_capacity(64 << 10, socket),
            seed,
            generations: vec![0; keys],
            random: Random::new(seed),
            page: Box::new(Page::ZERO),
        };
        let all: Vec<usize> = (0..keys).collect();
        for keys in all.chunks(REDIS_BURST_REQUESTS as usize) {
            for &key in keys {
                redis.ask_set(key)?;
            }
            redis.output.flush().context("writing to redis")?;
            for &key in keys {
                redis.must_be_set(key)?;
            }
        }
        Ok(redis)
    }

    /// The keys that it holds.
    pub(crate) fn keys(&self) -> u64 {
        self.generations.len() as u64
    }

    /// What belongs to a key in a generation.
    fn value(&mut self, key: usize, generation: u32) -> Vec<u8> {
        let id = PageId { index: key as u64, generation, seed: self.seed };
        self.page.write(id, Kind::Random);
        let mut bytes = self.page.bytes();
        let spread = (PAGE_BYTES - REDIS_VALUE_BYTES_MIN + 1) as u64;
        bytes.truncate(REDIS_VALUE_BYTES_MIN + (Random::new(id.key()).next() % spread) as usize);
        bytes
    }

    fn ask_set(&mut self, key: usize) -> Result<()> {
        let value = self.value(key, self.generations[key]);
        write_command(&mut self.output, &[b"SET", name(key).as_bytes(), &value]).context("writing to redis")
    }

    fn ask_get(&mut self, key: usize) -> Result<()> {
        write_command(&mut self.output, &[b"GET", name(key).as_bytes()]).context("writing to redis")
    }

    fn reply(&mut self) -> Result<Reply> {
        match read_reply(&mut self.input) {
            Ok(Reply::Error(why)) => bail!("redis refuses: {why}"),
            Ok(reply) => Ok(reply),
            Err(error) => match self.server.try_wait() {
                Ok(Some(status)) => Err(error.context(format!("redis has ended: {status}"))),
                _ => Err(error),
            },
        }
    }

    fn must_be_set(&mut self, key: usize) -> Result<()> {
        let reply = self.reply()?;
        ensure!(reply == Reply::Simple("OK".into()), "redis answered SET {} with {reply:?}", name(key));
        Ok(())
    }

    fn compare(&mut self, key: usize, generation: u32, bad: &mut Report) -> Result<()> {
        let found = match self.reply()? {
            Reply::Bulk(found) => Some(found),
            Reply::Nil => None,
            other => bail!("redis answered GET {} with {other:?}", name(key)),
        };
        if found.as_deref() != Some(&self.value(key, generation)) {
            let length = found.map_or_else(|| "none".to_owned(), |bytes| bytes.len().to_string());
            bad.bad(&format!("key={key} generation={generation} found_bytes={length}"));
        }
        Ok(())
    }
}

impl Work for Redis {
    fn unit(&self) -> &'static str {
        "requests"
    }

    fn step(&self) -> u64 {
        MILLIONTHS
    }

    fn burst(&self) -> u64 {
        REDIS_BURST_REQUESTS
    }

    fn debt_max(&self) -> Duration {
        PROGRAM_DEBT_MAX
    }

    /// Three of four requests write a key anew, the fourth reads one: what is due goes out together, as from many
    /// clients.
    fn run(&mut self, steps: u64, bad: &mut Report) -> Result<()> {
        let mut asked = Vec::new();
        for _ in 0..steps {
            let key = (self.random.next() % self.keys()) as usize;
            if self.random.next().is_multiple_of(4) {
                self.ask_get(key)?;
                asked.push(Asked::Get(key, self.generations[key]));
            } else {
                self.generations[key] = self.generations[key].wrapping_add(1);
                self.ask_set(key)?;
                asked.push(Asked::Set(key));
            }
        }
        self.output.flush().context("writing to redis")?;
        for request in asked {
            match request {
                Asked::Set(key) => self.must_be_set(key)?,
                Asked::Get(key, generation) => self.compare(key, generation, bad)?,
            }
        }
        Ok(())
    }

    /// Reads every key back.
    fn verify(&mut self, bad: &mut Report) -> Result<u64> {
        let all: Vec<usize> = (0..self.generations.len()).collect();
        for keys in all.chunks(REDIS_BURST_REQUESTS as usize) {
            for &key in keys {
                self.ask_get(key)?;
            }
            self.output.flush().context("writing to redis")?;
            for &key in keys {
                self.compare(key, self.generations[key], bad)?;
            }
        }
        write_command(&mut self.output, &[b"DBSIZE"]).context("writing to redis")?;
        self.output.flush().context("writing to redis")?;
        let reply = self.reply()?;
        if reply != Reply::Integer(self.generations.len() as i64) {
            bad.bad(&format!("keys={} redis_says={reply:?}", self.generations.len()));
        }
        Ok(self.keys())
    }

    fn corrupt(&mut self) -> Result<u64> {
        let key = (self.random.next() % self.keys()) as usize;
        write_command(&mut self.output, &[b"SETRANGE", name(key).as_bytes(), b"100", b"damaged"])?;
        self.output.flush().context("writing to redis")?;
        self.reply()?;
        Ok(key as u64)
    }
}

fn name(key: usize) -> String {
    format!("key:{key:08}")
}

fn connect(server: &mut Child) -> Result<UnixStream> {
    let began = Instant::now();
    loop {
        if let Ok(socket) = UnixStream::connect(SOCKET) {
            return Ok(socket);
        }
        if let Some(status) = server.try_wait().context("looking after redis")? {
            bail!("redis has ended before it listened: {status}; its messages are on the console");
        }
        ensure!(began.elapsed() < PROGRAM_WAIT, "redis does not listen after {} s", PROGRAM_WAIT.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}
