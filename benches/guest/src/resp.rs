//! The protocol of redis, as much of it as the load needs: RESP 2, https://redis.io/docs/latest/develop/reference/protocol-spec/.

use std::io::{BufRead, Read, Write};

use anyhow::{Context, Result, bail, ensure};

use crate::limits::{REPLY_BYTES_MAX, REPLY_LINE_BYTES_MAX};

/// What redis answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// `+OK`.
    Simple(String),
    /// `:3`.
    Integer(i64),
    /// A string of bytes.
    Bulk(Vec<u8>),
    /// There is no such key.
    Nil,
    /// `-ERR ...`: redis refuses.
    Error(String),
}

/// Writes a command of these words.
pub(crate) fn write_command(output: &mut impl Write, words: &[&[u8]]) -> Result<()> {
    write!(output, "*{}\r\n", words.len())?;
    for word in words {
        write!(output, "${}\r\n", word.len())?;
        output.write_all(word)?;
        output.write_all(b"\r\n")?;
    }
    Ok(())
}

/// Reads one reply.
pub(crate) fn read_reply(input: &mut impl BufRead) -> Result<Reply> {
    let mut line = Vec::new();
    input
        .by_ref()
        .take(REPLY_LINE_BYTES_MAX)
        .read_until(b'\n', &mut line)
        .context("reading redis's answer")?;
    let Some(text) = line.strip_suffix(b"\r\n") else {
        bail!("redis's answer ends in the middle of a line, or the line is too long");
    };
    let (kind, rest) = text.split_first().context("redis's answer is an empty line")?;
    let rest = String::from_utf8_lossy(rest).into_owned();
    let number =
        || rest.parse::<i64>().with_context(|| format!("{rest:?} in redis's answer is not a number"));
    Ok(match kind {
        b'+' => Reply::Simple(rest),
        b'-' => Reply::Error(rest),
        b':' => Reply::Integer(number()?),
        b'$' => match number()? {
            -1 => Reply::Nil,
            length => {
                let length = usize::try_from(length).context("redis's answer has a negative length")?;
                ensure!(length <= REPLY_BYTES_MAX, "redis's answer is {length} bytes long");
                let mut bytes = vec![0; length + 2];
                input.read_exact(&mut bytes).context("reading redis's answer")?;
                ensure!(bytes.ends_with(b"\r\n"), "redis's answer is longer than it says");
                bytes.truncate(length);
                Reply::Bulk(bytes)
            }
        },
        _ => bail!("redis's answer begins with byte {kind}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Reply> {
        read_reply(&mut &bytes[..])
    }

    #[test]
    fn commands_are_written_as_the_protocol_says() {
        let mut bytes = Vec::new();
        write_command(&mut bytes, &[b"SET", b"k", b"\0\r\n"]).unwrap();
        assert_eq!(bytes, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\n\0\r\n\r\n");
    }

    #[test]
    fn every_kind_of_reply_is_read() {
        assert_eq!(read(b"+OK\r\n").unwrap(), Reply::Simple("OK".into()));
        assert_eq!(read(b"-ERR no\r\n").unwrap(), Reply::Error("ERR no".into()));
        assert_eq!(read(b":-7\r\n").unwrap(), Reply::Integer(-7));
        assert_eq!(read(b"$-1\r\n").unwrap(), Reply::Nil);
        assert_eq!(read(b"$0\r\n\r\n").unwrap(), Reply::Bulk(vec![]));
        assert_eq!(read(b"$4\r\n\r\n\0x\r\n").unwrap(), Reply::Bulk(b"\r\n\0x".to_vec()));
    }

    #[test]
    fn replies_follow_each_other() {
        let mut input: &[u8] = b"+OK\r\n$1\r\na\r\n:1\r\n";
        let replies: Vec<_> = (0..3).map(|_| read_reply(&mut input).unwrap()).collect();
        assert_eq!(replies, [Reply::Simple("OK".into()), Reply::Bulk(b"a".to_vec()), Reply::Integer(1)]);
        assert!(read_reply(&mut input).is_err());
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bytes in [
            &b""[..],
            b"+OK",
            b"+OK\n",
            b"\r\n",
            b"?\r\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"$3\r\nab\r\n",
            b"$1\r\nab\r\n",
            b"$999999999999\r\n",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
        assert!(read(&vec![b'+'; 1 << 20]).is_err());
    }
}
