//! `--check`: asks the service that runs with the same configuration whether it is ready.
//!
//! For what has no HTTP client at hand: an image without a shell, whose health Docker asks for by a command. It is the question
//! `/ready` on the health port, so that a container is healthy exactly when a kubelet would send it traffic.
//!
//! Rejected: `grpc.health.v1` on the data port, for which the check would need a certificate; a runtime for one request.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::server;

/// How long each step may take: connecting, asking, each part of the answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// As much of an answer as is read: it is a list of checks, each with a line of text.
const LONGEST: u64 = 64 << 10;

/// Asks; an error says what the service answered, or why there is no answer.
pub(crate) fn ready(server: &server::Config) -> Result<(), String> {
    let host = match server.host {
        IpAddr::V4(host) if host.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(host) if host.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        host => host,
    };
    let address = SocketAddr::new(host, server.health_port);
    let answer = ask(address).map_err(|error| format!("http://{address}/ready does not answer: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(format!("is not ready: {}", body.trim())),
    }
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;

    use super::*;

    /// Answers one question with this.
    fn answering(answer: &'static str) -> server::Config {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // All of it: what is left unread resets the connection.
            let question: Vec<_> = BufReader::new(&stream)
                .lines()
                .map(Result::unwrap)
                .take_while(|line| !line.is_empty())
                .collect();
            assert_eq!(question[0], "GET /ready HTTP/1.1");
            stream.write_all(answer.as_bytes()).unwrap();
        });
        server::Config {
            // As in a container: all addresses, which lead nowhere.
            host: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            health_port: port,
            ..server::Config::default()
        }
    }

    #[test]
    fn ready_is_what_the_service_says() {
        assert_eq!(ready(&answering("HTTP/1.1 200 OK\r\n\r\n{}")), Ok(()));
        let starting = answering("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"status\":\"starting\"}\n");
        assert_eq!(
            ready(&starting),
            Err("is not ready: {\"status\":\"starting\"}".to_owned())
        );
        assert!(ready(&answering("")).is_err());
    }

    #[test]
    fn nobody_there_is_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let config = server::Config {
            health_port: port,
            ..server::Config::default()
        };
        let error = ready(&config).unwrap_err();
        assert!(error.contains("does not answer"), "{error}");
    }
}
