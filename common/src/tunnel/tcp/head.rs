//! Heads as the tunnel has them, and as HTTP/2 takes and gives them.

use h2::ext;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version, request, response};

use crate::socket::Protocol;
use crate::tunnel::error::{ResetCode, TunnelError};
use crate::tunnel::fields::{MAX_FIELDS, is_per_connection};

/// A request's head for HTTP/2.
pub(super) fn to_request(mut head: request::Parts) -> Result<Request<()>, TunnelError> {
    let malformed = || TunnelError::protocol(ResetCode::MESSAGE_ERROR, "a target that is none");
    let host = head.headers.get(header::HOST).map(HeaderValue::as_bytes);
    let authority = match head.uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => host.map(Authority::try_from).transpose().map_err(|_| malformed())?,
    };
    let mut target = http::uri::Parts::default();
    if authority.is_some() {
        target.scheme = Some(head.uri.scheme().cloned().unwrap_or(Scheme::HTTPS));
    }
    target.authority = authority;
    target.path_and_query = Some(head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    let mut request = Request::new(());
    // Only a request of HTTP/1 may have no authority, says the h2 crate.
    *request.version_mut() = if target.authority.is_some() { Version::HTTP_2 } else { Version::HTTP_11 };
    *request.uri_mut() = Uri::from_parts(target).map_err(|_| malformed())?;
    *request.method_mut() = head.method;
    if let Some(Protocol(protocol)) = head.extensions.remove::<Protocol>() {
        request.extensions_mut().insert(ext::Protocol::from(protocol.as_str()));
    }
    *request.headers_mut() = of_the_message(head.headers);
    Ok(request)
}

/// A request's head as the tunnel has it.
pub(super) fn from_request(mut head: request::Parts) -> Result<request::Parts, TunnelError> {
    bounded(&head.headers)?;
    if let Some(protocol) = head.extensions.remove::<ext::Protocol>() {
        head.extensions.insert(Protocol(protocol.as_str().to_owned()));
    }
    head.version = Version::HTTP_3;
    Ok(head)
}

/// A response's head for HTTP/2.
pub(super) fn to_response(head: response::Parts) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = of_the_message(head.headers);
    response
}

/// A response's head as the tunnel has it.
pub(super) fn from_response(mut head: response::Parts) -> Result<response::Parts, TunnelError> {
    bounded(&head.headers)?;
    head.version = Version::HTTP_3;
    Ok(head)
}

/// Without what belongs to one connection: HTTP/2 would refuse it.
pub(super) fn of_the_message(mut headers: HeaderMap) -> HeaderMap {
    let stays = |name: &_, value: &_| !is_per_connection(name, value) && *name != header::HOST;
    if headers.iter().all(|(name, value)| stays(name, value)) {
        return headers;
    }
    let mut kept = HeaderMap::with_capacity(headers.len());
    let mut last = None;
    for (name, value) in headers.drain() {
        // A further value of a name comes without it.
        if name.is_some() {
            last = name;
        }
        if let Some(name) = last.as_ref().filter(|name| stays(name, &value)) {
            kept.append(name, value);
        }
    }
    kept
}

/// As many fields as over QUIC; how large they may be, HTTP/2 was told.
fn bounded(headers: &HeaderMap) -> Result<(), TunnelError> {
    if headers.len() > MAX_FIELDS {
        return Err(TunnelError::protocol(ResetCode::EXCESSIVE_LOAD, "too many fields"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn a_target_is_whole_and_the_connections_fields_stay_behind() {
        let request = Request::post("/v2?a=b").header("host", "relay.test:8443").header("connection", "keep-alive, x");
        let request = request.header("te", "trailers").header("x-a", "1").header("x-a", "2").body(()).unwrap();
        let made = to_request(request.into_parts().0).unwrap();
        assert_eq!(made.uri(), "https://relay.test:8443/v2?a=b");
        let fields: Vec<_> =
            made.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(fields, [("te", "trailers"), ("x-a", "1"), ("x-a", "2")]);
    }

    #[test]
    fn a_request_without_a_host_and_a_socket_are_told_as_they_are() {
        let made = to_request(Request::get("/.adit/manifest").body(()).unwrap().into_parts().0).unwrap();
        assert_eq!((made.uri().to_string().as_str(), made.version()), ("/.adit/manifest", Version::HTTP_11));
        let mut socket = Request::new(()).into_parts().0;
        (socket.method, socket.uri) = (Method::CONNECT, Uri::from_static("https://relay.test/ws"));
        socket.extensions.insert(Protocol("websocket".to_owned()));
        let made = to_request(socket).unwrap();
        assert_eq!(made.extensions().get::<ext::Protocol>().unwrap().as_str(), "websocket");
        let back = from_request(made.into_parts().0).unwrap();
        assert_eq!(back.extensions.get(), Some(&Protocol("websocket".to_owned())));
    }

    #[test]
    fn too_many_fields_are_refused() {
        let mut head = Response::new(()).into_parts().0;
        for _ in 0..=MAX_FIELDS {
            head.headers.append("x", HeaderValue::from_static("y"));
        }
        assert!(matches!(from_response(head), Err(TunnelError::Protocol { code: ResetCode::EXCESSIVE_LOAD, .. })));
    }
}
