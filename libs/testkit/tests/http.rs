//! The plain HTTP helper against a server of a few lines.

use muster_testkit::http;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[tokio::test]
async fn json_goes_out_and_status_headers_and_body_come_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = String::new();
        while !request.ends_with("{\"a\":1}") {
            let mut buffer = [0; 1024];
            let length = stream.read(&mut buffer).await.unwrap();
            request.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        let answer = b"HTTP/1.1 503 Busy\r\nx-why: load\r\ncontent-length: 11\r\n\r\n{\"b\":[2,3]}";
        stream.write_all(answer).await.unwrap();
        request
    });
    let answer = http::post(address, "/path", &json!({"a": 1})).await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.headers["x-why"], "load");
    assert_eq!(answer.json(), json!({"b": [2, 3]}));
    let request = server.join_next().await.unwrap().unwrap();
    assert!(request.starts_with("POST /path HTTP/1.1\r\n"), "{request}");
}

#[tokio::test]
async fn nobody_listening_is_an_error_that_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = http::get(address, "/ready").await.unwrap_err();
    assert!(error.contains(&address.to_string()), "{error}");
}
