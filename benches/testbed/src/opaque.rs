//! Two ends of a session that are no hypervisors: sockets of a test that says and hears what it likes.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::limits::{ANSWER_WAIT, EXIT_WAIT};
use crate::session::{Session, unix, wait_ended};
use crate::{Gateway, Scratch, wait};

/// A session with sockets of ours at both ends.
#[derive(Debug)]
pub struct Opaque {
    /// The session.
    pub session: Session,
    destination: UnixListener,
    listen: PathBuf,
}

impl Opaque {
    /// Opens a session between two gateways. `peer` is the way to the destination's.
    ///
    /// # Errors
    /// When a gateway refuses.
    pub fn open(
        scratch: &Scratch,
        [source, destination]: [&Gateway; 2],
        peer: &str,
        options: &Value,
    ) -> Result<Self> {
        let session = Session::new()?;
        let [listen, connect] =
            ["in", "out"].map(|name| scratch.file(&format!("{name}-{}.sock", &session.id[..6])));
        let listener = UnixListener::bind(&connect).context("listening as a destination")?;
        destination.rpc()?.call("session.open", session.at_destination(&unix(&connect), options))?;
        source.rpc()?.call("session.open", session.at_source(peer, &unix(&listen), options))?;
        Ok(Self { session, destination: listener, listen })
    }

    /// Connects as the source does.
    ///
    /// # Errors
    /// When the gateway does not listen.
    pub fn source(&self) -> Result<UnixStream> {
        bounded(UnixStream::connect(&self.listen).context("connecting as a source")?)
    }

    /// Takes the gateway's connection as the destination does.
    ///
    /// # Errors
    /// When it does not connect within [`ANSWER_WAIT`].
    pub fn destination(&self) -> Result<UnixStream> {
        self.destination_within(ANSWER_WAIT)
    }

    /// The same for a session that may fail before.
    ///
    /// # Errors
    /// When it does not connect within `limit`.
    pub fn destination_within(&self, limit: Duration) -> Result<UnixStream> {
        self.destination.set_nonblocking(true)?;
        let accept = || Ok(self.destination.accept().ok());
        let (socket, _) = wait::until("the gateway's connection", limit, accept)?;
        socket.set_nonblocking(false)?;
        bounded(socket)
    }

    /// Sends a piece through a connection that says nothing before the first of them, and sees it arrive. `far` is its other end,
    /// taken with the first.
    ///
    /// # Errors
    /// When it does not arrive as it was.
    pub fn pass(&self, source: &mut UnixStream, far: &mut Option<UnixStream>, piece: u8) -> Result<()> {
        source.write_all(&[piece; 1000])?;
        let far = match far {
            Some(far) => far,
            none => none.insert(self.destination()?),
        };
        let mut arrived = [0; 1000];
        far.read_exact(&mut arrived).with_context(|| format!("piece {piece} did not arrive"))?;
        ensure!(arrived == [piece; 1000], "piece {piece} arrived as another");
        Ok(())
    }

    /// Carries `there` and `back` and both ends, and fails unless exactly these bytes arrive.
    ///
    /// # Errors
    /// When they do not.
    pub fn carry(&self, there: &[u8], back: &[u8]) -> Result<()> {
        let mut source = self.source()?;
        thread::scope(|scope| {
            let far = scope.spawn(|| -> Result<Vec<u8>> {
                let mut destination = self.destination()?;
                let mut arrived = Vec::new();
                thread::scope(|scope| {
                    let mut writing = destination.try_clone()?;
                    scope.spawn(move || {
                        // What is not taken is missing at the other end.
                        let _ = writing.write_all(back);
                        let _ = writing.shutdown(std::net::Shutdown::Write);
                    });
                    destination.read_to_end(&mut arrived).context("reading as the destination")
                })?;
                Ok(arrived)
            });
            let mut writing = source.try_clone()?;
            scope.spawn(move || {
                let _ = writing.write_all(there);
                let _ = writing.shutdown(std::net::Shutdown::Write);
            });
            let mut arrived = Vec::new();
            source.read_to_end(&mut arrived).context("reading as the source")?;
            ensure!(arrived == back, "{} bytes came back of {}, or others", arrived.len(), back.len());
            let arrived = far.join().map_err(|_| anyhow::anyhow!("the destination's thread failed"))??;
            ensure!(arrived == there, "{} bytes arrived of {}, or others", arrived.len(), there.len());
            Ok(())
        })
    }

    /// Fails unless both gateways say that the session has finished with equal digests.
    ///
    /// # Errors
    /// The record that says otherwise.
    pub fn must_finish(&self, gateways: [&Gateway; 2]) -> Result<()> {
        for gateway in gateways {
            let record = wait_ended(gateway, &self.session.id, EXIT_WAIT)?;
            ensure!(record["state"] == "finished" && record["digest_equal"] == true, "{record}");
        }
        Ok(())
    }

    /// Fails unless the session has failed at this gateway, for this reason. Returns the message.
    ///
    /// # Errors
    /// The record that says otherwise.
    pub fn must_fail(&self, gateway: &Gateway, code: &str) -> Result<String> {
        let record = wait_ended(gateway, &self.session.id, EXIT_WAIT)?;
        ensure!(record["state"] == "failed" && record["reason"]["code"] == code, "not {code}: {record}");
        record["reason"]["message"]
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("no message: {record}"))
    }
}

/// A session from end to end, to see that two gateways are well.
///
/// # Errors
/// When they are not.
pub fn must_carry(scratch: &Scratch, gateways: [&Gateway; 2]) -> Result<()> {
    let opaque = Opaque::open(scratch, gateways, gateways[1].peer()?, &json!({}))?;
    opaque.carry(b"there", b"and back")?;
    opaque.must_finish(gateways)
}

fn bounded(socket: UnixStream) -> Result<UnixStream> {
    socket.set_read_timeout(Some(ANSWER_WAIT)).context("setting a time limit")?;
    socket.set_write_timeout(Some(Duration::from_secs(20))).context("setting a time limit")?;
    Ok(socket)
}
