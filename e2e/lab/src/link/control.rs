//! The control socket of a link: one line of words in, one line out.
//!
//! ```text
//! ab delay=20ms loss=1        from the first end to the second; `ba` is back, `both` is both
//! both down                   nothing gets through; `up` again, `clear` makes a wire of it
//! stats                       what both directions have seen, as JSON
//! ```

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::counters::Both;
use super::pump::Controls;

/// Longer than all settings together.
const LONGEST_LINE: u64 = 4096;

/// Answers lines on the socket for ever, one connection after another: who controls a link is its lab.
pub(super) fn answer(listener: &UnixListener, ab: &Arc<Controls>, ba: &Arc<Controls>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().context("cannot take a connection to the control socket")?;
        // A caller that went away is its own affair.
        let _ = converse(stream, ab, ba);
    }
}

fn converse(mut stream: UnixStream, ab: &Controls, ba: &Controls) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?.take(LONGEST_LINE)).read_line(&mut line)?;
    let said = match obey(&line, ab, ba) {
        Ok(said) => said,
        Err(error) => format!("error: {error:#}"),
    };
    writeln!(stream, "{said}")?;
    Ok(())
}

/// What one line does, and what is said to it.
pub(super) fn obey(line: &str, ab: &Controls, ba: &Controls) -> anyhow::Result<String> {
    let mut words = line.split_whitespace();
    let directions: &[&Controls] = match words.next() {
        Some("ab") => &[ab],
        Some("ba") => &[ba],
        Some("both") => &[ab, ba],
        Some("stats") => {
            return Ok(serde_json::to_string(&Both { ab: ab.counters.read(), ba: ba.counters.read() })?);
        }
        _ => bail!("want ab, ba, both or stats"),
    };
    directions.iter().try_for_each(|direction| direction.change(words.clone()))?;
    Ok("ok".into())
}

/// Says one line to the link behind a control socket, and gives its answer.
pub(crate) fn tell(socket: &Path, line: &str) -> anyhow::Result<String> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("there is no link behind {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    match answer.trim_end().strip_prefix("error: ") {
        Some(error) => bail!("the link says: {error}"),
        None if answer.is_empty() => bail!("the link did not answer"),
        None => Ok(answer.trim_end().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_obeyed_or_refused_whole() {
        let (ab, ba) = (Controls::default(), Controls::default());
        assert_eq!(obey("both delay=20ms loss=1", &ab, &ba).unwrap(), "ok");
        assert_eq!(obey("ba down", &ab, &ba).unwrap(), "ok");
        let stats: Both = serde_json::from_str(&obey("stats", &ab, &ba).unwrap()).unwrap();
        assert_eq!(stats, Both::default());
        for wrong in ["", "delay=20ms", "up", "both wings=2"] {
            assert!(obey(wrong, &ab, &ba).is_err(), "{wrong}");
        }
    }
}
