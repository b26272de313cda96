use futures::stream;
use http_body_util::StreamBody;
use proptest::prelude::*;
use tonic::Code;

use super::*;

const LIMIT: usize = 40;

/// What comes of a body.
#[derive(Debug, Clone)]
enum Came {
    Piece(Vec<u8>),
    Trailers(Option<&'static str>, bool),
    Broke,
}

fn body(came: &[Came]) -> impl Body<Data = Bytes, Error = Status> + Send + Unpin + 'static {
    let frames = came.iter().map(|came| match came {
        Came::Piece(bytes) => Ok(Frame::data(Bytes::copy_from_slice(bytes))),
        Came::Trailers(status, has_more) => {
            let mut trailers = HeaderMap::new();
            if let Some(status) = status {
                trailers.insert(GRPC_STATUS, HeaderValue::from_static(status));
            }
            if *has_more {
                trailers.insert("grpc-message", HeaderValue::from_static("told"));
                trailers.insert("x-more", HeaderValue::from_static("1"));
            }
            Ok(Frame::trailers(trailers))
        }
        Came::Broke => Err(Status::unavailable("it broke")),
    });
    StreamBody::new(stream::iter(frames.collect::<Vec<_>>()))
}

fn response(
    came: &[Came],
    head: Option<&'static str>,
    status: u16,
) -> http::Response<impl Body<Data = Bytes, Error = Status> + Send + Unpin + 'static> {
    let mut response = http::Response::new(body(came));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
        .headers_mut()
        .insert("x-head", HeaderValue::from_static("1"));
    if let Some(head) = head {
        response
            .headers_mut()
            .insert(GRPC_STATUS, HeaderValue::from_static(head));
    }
    response
}

/// No body: tonic has it.
type Nothing = StreamBody<stream::Empty<Result<Frame<Bytes>, Status>>>;

type Outcome = Result<(Vec<u8>, Vec<String>), (Code, String)>;

fn told(outcome: Result<Response<Bytes>, Status>) -> Outcome {
    outcome
        .map(|response| {
            let (metadata, message, _) = response.into_parts();
            let mut headers = metadata.into_headers();
            headers.remove(GRPC_STATUS);
            let mut names: Vec<_> = headers.keys().map(ToString::to_string).collect();
            names.sort();
            (message.to_vec(), names)
        })
        .map_err(|status| (status.code(), status.message().to_owned()))
}

/// Messages in their frames, some of them broken, and what follows them, cut into pieces.
fn coming() -> impl Strategy<Value = Vec<Came>> {
    let message = (0_u8..12, prop::collection::vec(any::<u8>(), 0..50), 0_usize..20).prop_map(
        |(flag, message, lie)| {
            let length = if lie == 0 {
                message.len() + 3
            } else {
                message.len()
            };
            let mut frame = vec![flag.saturating_sub(9)];
            frame.extend(u32::try_from(length).unwrap().to_be_bytes());
            frame.extend(message);
            frame
        },
    );
    let trailers = (
        prop::option::of(prop::sample::select(vec!["0", "0", "0", "5", "x"])),
        any::<bool>(),
    );
    let end = prop_oneof![
        6 => trailers.prop_map(|(status, has_more)| vec![Came::Trailers(status, has_more)]),
        1 => Just(vec![Came::Broke]),
        1 => Just(Vec::new()),
    ];
    let cuts = prop::collection::vec(0_usize..60, 0..3);
    (prop::collection::vec((message, cuts), 0..3), end).prop_map(|(messages, end)| {
        let mut came = Vec::new();
        for (frame, cuts) in messages {
            let mut rest = frame.as_slice();
            for cut in cuts {
                let (piece, others) = rest.split_at(cut.min(rest.len()));
                came.push(Came::Piece(piece.to_vec()));
                rest = others;
            }
            came.push(Came::Piece(rest.to_vec()));
        }
        came.extend(end);
        came
    })
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn one_answer_is_what_tonic_takes_for_one(
        came in coming(), head in prop::option::weighted(0.1, prop::sample::select(vec!["0", "7"])),
        status in prop::sample::select(vec![200_u16, 200, 200, 503]),
    ) {
        let ours = run(single(response(&came, head, status), LIMIT));
        let tonics = run(single_by_tonic(response(&came, head, status), LIMIT));
        prop_assert_eq!(told(ours), told(tonics));
    }

    #[test]
    fn a_stream_has_the_messages_that_tonic_finds_in_it(came in coming()) {
        let ours = run(async {
            let messages = messages(response(&came, None, 200), LIMIT).await.unwrap();
            all_of(messages.into_inner()).await
        });
        let tonics = run(async {
            let stream = Streaming::new_response(Passing, body(&came), StatusCode::OK, None, Some(LIMIT));
            let source = Source::<Nothing>::Tonic(Box::new(stream));
            all_of(Messages { source, limit: LIMIT }).await
        });
        prop_assert_eq!(ours, tonics);
    }

    #[test]
    fn a_request_is_taken_as_tonic_takes_it(came in coming()) {
        let ours = run(async {
            let body = tonic::body::Body::new(body(&came));
            match take(&HeaderMap::new(), body, LIMIT).await {
                Ok((message, trailers)) => Ok((message.to_vec(), trailers.is_some())),
                Err(body) => asked_by_tonic(body).await,
            }
        });
        let tonics = run(asked_by_tonic(tonic::body::Body::new(body(&came))));
        prop_assert_eq!(ours, tonics);
    }

    #[test]
    fn what_is_framed_is_found_again(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 3)) {
        let pieces: [Bytes; 3] = [&pieces[0], &pieces[1], &pieces[2]].map(|piece| Bytes::copy_from_slice(piece));
        let message = Pieces(pieces);
        let frame = framed(&message).unwrap();
        prop_assert_eq!(only(&frame, 60).map(|found| found.to_vec()), Some(message.to_vec()));
        prop_assert!(message.is_empty() || only(&frame, message.len() - 1).is_none());
    }
}

/// All messages, and the error that ends them, if one does.
async fn all_of<B>(mut messages: Messages<B>) -> (Vec<Vec<u8>>, Option<(Code, String)>)
where
    B: Body<Data = Bytes, Error = Status> + Send + Unpin + 'static,
{
    let mut found = Vec::new();
    loop {
        match messages.message().await {
            Ok(Some(message)) => found.push(message.to_vec()),
            Ok(None) => return (found, None),
            Err(status) => return (found, Some((status.code(), status.message().to_owned()))),
        }
    }
}

/// The one message of a request, and whether trailers came with it.
async fn asked_by_tonic(body: tonic::body::Body) -> Result<(Vec<u8>, bool), (Code, String)> {
    let told = |status: Status| (status.code(), status.message().to_owned());
    let mut stream = Streaming::new_request(Passing, body, None, Some(LIMIT));
    let message = stream.message().await.map_err(told)?;
    let message = message.ok_or((Code::Internal, "Missing request message.".to_owned()))?;
    let trailers = stream.trailers().await.map_err(told)?;
    Ok((message.to_vec(), trailers.is_some()))
}

#[tokio::test]
async fn an_answer_has_its_message_and_then_its_status() {
    let message = Pieces([Bytes::from("ab"), Bytes::new(), Bytes::from("c")]);
    let answer = answer(HeaderMap::new(), &message).unwrap();
    assert_eq!(answer.headers()[header::CONTENT_TYPE], GRPC);
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()[GRPC_STATUS], OK);
    assert_eq!(&body.to_bytes()[..], b"\0\0\0\0\x03abc");
}

#[test]
fn an_address_keeps_who_is_addressed() {
    let origin = Uri::from_static("https://agent.example:7411/");
    assert_eq!(at(&origin, "/a.B/C").unwrap(), "https://agent.example:7411/a.B/C");
}
