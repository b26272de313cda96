//! gRPC requests: panics, unknown methods, counting, reflection.

use muster_runtime::server;
use muster_testkit::wait_for;
use tonic::Code;
use tonic_reflection::pb::{v1, v1alpha};

use crate::grpc_service::call;
use crate::stage::{PATIENCE, channel, service, start};

#[tokio::test]
async fn a_panic_before_or_in_the_answer_is_internal_and_the_connection_lives() {
    let running = start(&server::Config::default(), |_| {});
    let channel = channel(running.data).await;
    for path in ["/example.v1.Peculiar/Panic", "/example.v1.Peculiar/PanicLater"] {
        let status = call(channel.clone(), path).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{path}: {status}");
        assert!(status.message().contains("panicked"), "{path}: {status}");
    }
    let status = call(channel.clone(), "/example.v1.Peculiar/NotFound")
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    drop(channel);
    running.stop().await;
}

#[tokio::test]
async fn an_unknown_service_is_unimplemented() {
    let running = start(&server::Config::default(), |_| {});
    let status = call(channel(running.data).await, "/no.such.Service/Method")
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    running.stop().await;
}

#[tokio::test]
async fn requests_are_counted_by_their_code_wherever_it_stands() {
    let running = start(&server::Config::default(), |_| {});
    let channel = channel(running.data).await;
    let mut health = running.health_client().await;
    // In the head, in the trailers after a message, and OK.
    health.check(service("no.such")).await.unwrap_err();
    call(channel.clone(), "/example.v1.Peculiar/NotFound")
        .await
        .unwrap_err();
    call(channel.clone(), "/example.v1.Peculiar/PanicLater")
        .await
        .unwrap_err();
    health.check(service("")).await.unwrap();
    let mut watch = health.watch(service("")).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    drop(watch); // the client leaves
    for (endpoint, status, times) in [
        ("/grpc.health.v1.Health/Check", 404, 1),
        ("/grpc.health.v1.Health/Check", 200, 1),
        ("/grpc.health.v1.Health/Watch", 499, 1),
        ("/example.v1.Peculiar/{*rest}", 404, 1),
        ("/example.v1.Peculiar/{*rest}", 500, 1),
    ] {
        let series = format!(
            r#"http_requests_total{{method="POST",endpoint="{endpoint}",status_code="{status}"}} {times}"#
        );
        wait_for(&series, PATIENCE, async || {
            running.metrics().await.contains(&series)
        })
        .await;
    }
    drop((channel, health));
    running.stop().await;
}

/// Asks the reflection service of that version for its list.
macro_rules! listed {
    ($version:ident, $address:expr) => {{
        use $version::server_reflection_client::ServerReflectionClient;
        use $version::server_reflection_request::MessageRequest;
        use $version::server_reflection_response::MessageResponse;
        let mut client = ServerReflectionClient::new(channel($address).await);
        let request = $version::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let requests = tokio_stream::iter([request]);
        let mut answers = client
            .server_reflection_info(requests)
            .await
            .unwrap()
            .into_inner();
        let answer = answers
            .message()
            .await
            .unwrap()
            .unwrap()
            .message_response
            .unwrap();
        let MessageResponse::ListServicesResponse(list) = answer else {
            panic!("not a list: {answer:?}")
        };
        list.service
            .into_iter()
            .map(|service| service.name)
            .collect::<Vec<String>>()
    }};
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    let running = start(&server::Config::default(), |_| {});
    for names in [listed!(v1, running.data), listed!(v1alpha, running.data)] {
        assert!(names.contains(&"grpc.health.v1.Health".to_owned()), "{names:?}");
    }
    running.stop().await;
}
