//! A client's connection under HTTP: TLS, or plain where the configuration opened such a port.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What an HTTP/2 client that knows whom it speaks to begins with (RFC 9113, section 3.4); no HTTP/1 request does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Either.
#[derive(Debug)]
pub(super) enum Wire {
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
}

impl Wire {
    /// The socket itself.
    pub(super) fn tcp(&mut self) -> &mut TcpStream {
        match self {
            Self::Tls(stream) => stream.get_mut().0,
            Self::Plain(stream) => stream,
        }
    }
}

/// Whether a plain connection begins as HTTP/2 does. Nothing is taken from it.
pub(super) async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let (mut seen, mut before) = ([0; PREFACE.len()], 0);
    loop {
        let count = stream.peek(&mut seen).await?;
        if !PREFACE.starts_with(&seen[..count]) || count == 0 {
            return Ok(false);
        }
        if count == PREFACE.len() {
            return Ok(true);
        }
        if count == before {
            // What is there was seen already, and the socket stays readable: others first.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        before = count;
    }
}

/// Does the same to either.
macro_rules! either {
    ($wire:expr, $stream:ident => $do:expr) => {
        match $wire.get_mut() {
            Wire::Tls($stream) => $do,
            Wire::Plain($stream) => $do,
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(context, into))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Plain(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn http2_is_known_by_its_first_bytes_however_they_come() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (pieces, expected) in [
            (vec![&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]], true),
            (vec![b"P", b"RI * HT", b"TP/2.0\r\n"], true),
            (vec![b"POST / HTTP/1.1\r\n"], false),
            (vec![b"P", b"UT / HTTP/1.1\r\n"], false),
            (vec![], false),
        ] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            client.set_nodelay(true).unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let say = async {
                for piece in pieces {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                client.shutdown().await.unwrap();
            };
            let (found, ()) = tokio::join!(speaks_http2(&server), say);
            assert_eq!(found.unwrap(), expected);
        }
    }
}
