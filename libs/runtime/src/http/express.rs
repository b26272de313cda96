//! The shortest way from a connection to a gRPC service: a method of the contract is looked up by its path and answered by its
//! service, without the routes in between.
//!
//! What stands before an answer is the same on both ways, because it is the same function: [`Layers::pass`]. What is no method of the
//! contract goes to the routes, as do the health service and reflection.
//!
//! Why: the routes match the path again, and copy the service and all that lies around it for each request. Next to a call that is only
//! passed on, that is a good part of the work.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tower::ServiceExt as _;

use super::Layers;
use crate::surface::Grpc;

/// What answers the requests of a port. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Answers {
    routes: Router,
    express: Option<Arc<Express>>,
}

struct Express {
    layers: Arc<Layers>,
    /// By the path of the method.
    methods: HashMap<String, Grpc>,
}

impl From<Router> for Answers {
    fn from(routes: Router) -> Self {
        Self {
            routes,
            express: None,
        }
    }
}

impl Answers {
    /// The routes, and the methods that go without them, all of them behind these layers.
    pub(crate) fn new(layers: &Arc<Layers>, routes: Router, methods: HashMap<String, Grpc>) -> Self {
        let ordinary = |State(layers): State<Arc<Layers>>, request: Request, next: Next| async move {
            layers.pass(request, |request| next.run(request)).await
        };
        let layers = Arc::clone(layers);
        let express = Express {
            layers: Arc::clone(&layers),
            methods,
        };
        Self {
            routes: routes.layer(axum::middleware::from_fn_with_state(layers, ordinary)),
            express: Some(Arc::new(express)),
        }
    }

    /// Answers a request.
    pub(crate) fn answer(&self, request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let path = request.uri().path();
        let direct = self.express.as_ref().and_then(|express| {
            let service = express.methods.get(path)?;
            Some((Arc::clone(&express.layers), service.clone()))
        });
        match direct {
            Some((layers, service)) => Box::pin(async move {
                let answer = |request: Request| service(request.map(tonic::body::Body::new));
                layers.pass(request, answer).await
            }),
            None => self.by_routes(request),
        }
    }

    fn by_routes(&self, request: Request) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let routes = self.routes.clone();
        Box::pin(async move {
            routes
                .oneshot(request)
                .await
                .unwrap_or_else(|never| match never {})
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::body::{Body, Bytes};
    use http::{HeaderMap, StatusCode, header};
    use http_body_util::BodyExt as _;
    use muster_api::FILE_DESCRIPTOR_SET;
    use muster_api::admin::SetLogLevelRequest;
    use muster_jose::token::{Secret, Signer};
    use prost::Message as _;
    use serde_json::json;

    use super::*;
    use crate::clock::{Clock as _, SystemClock};
    use crate::http::answers::GRPC_STATUS;
    use crate::trust::{self, token};
    use crate::{Chassis, Shutdown, Surface, server};

    const SECRET: &str = "0123456789abcdefghijklmnopqrstuvwxyz";
    const READ: &str = "/muster.admin.v1.AdminService/GetTraffic";
    const CHANGE: &str = "/muster.admin.v1.AdminService/SetLogLevel";
    const MESSAGE: usize = 1 << 10;

    fn chassis() -> Chassis {
        let server = server::Config {
            max_message_bytes: MESSAGE,
            ..server::Config::default()
        };
        let trust = trust::Config {
            tokens: token::Config {
                required: true,
                jwt_secret_key: Some(SECRET.to_owned().into()),
                max_failures_per_minute: 1_000,
                ..token::Config::default()
            },
            ..trust::Config::default()
        };
        Chassis::new("example", &server, &trust, &[], Shutdown::new()).unwrap()
    }

    fn bearer(role: &str, lasts: i64) -> String {
        let expires = SystemClock::default().now().as_second() + lasts;
        let claims = json!({ "sub": "ada", "aud": "muster", "exp": expires, "roles": [role] });
        format!(
            "Bearer {}",
            Signer::sign_with(&Secret::new(SECRET).unwrap(), &claims)
        )
    }

    #[derive(Clone)]
    struct Case {
        name: &'static str,
        path: &'static str,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
        /// The status of gRPC, or of HTTP where that is not spoken.
        expected: &'static str,
    }

    fn cases() -> Vec<Case> {
        let (reader, admin) = (bearer("agent-reader", 600), bearer("admin", 600));
        let framed = |length: usize, bytes: &[u8]| {
            let mut body = vec![0];
            body.extend(u32::try_from(length).unwrap().to_be_bytes());
            body.extend(bytes);
            body
        };
        let case = |name, path, authorization: Option<&str>, body: Vec<u8>, expected| {
            let grpc = ("content-type", "application/grpc".to_owned());
            let shown = authorization.map(|value| ("authorization", value.to_owned()));
            Case {
                name,
                path,
                headers: std::iter::once(grpc).chain(shown).collect(),
                body,
                expected,
            }
        };
        let level = SetLogLevelRequest {
            filter: "no=such=filter".to_owned(),
            ..SetLogLevelRequest::default()
        };
        let level = level.encode_to_vec();
        let mut impostor = case("on behalf", READ, Some(&reader), framed(0, &[]), "7");
        let other = trust::Caller::new(
            trust::Kind::EndUser,
            None,
            "eve",
            trust::Roles::default(),
            trust::Grants::default(),
        );
        impostor.headers.push(("muster-on-behalf-of", other.to_text()));
        let mut not_grpc = case("plain HTTP", READ, Some(&reader), b"{}".to_vec(), "415");
        not_grpc.headers[0].1 = "application/json".to_owned();
        vec![
            case("no token", READ, None, framed(0, &[]), "16"),
            case("no bearer", READ, Some("Basic eA=="), framed(0, &[]), "16"),
            case("forged", READ, Some("Bearer e30.e30.e30"), framed(0, &[]), "16"),
            case(
                "expired",
                READ,
                Some(&bearer("admin", -600)),
                framed(0, &[]),
                "16",
            ),
            case("no role", READ, Some(&bearer("other", 600)), framed(0, &[]), "7"),
            case(
                "a reader who changes",
                CHANGE,
                Some(&reader),
                framed(level.len(), &level),
                "7",
            ),
            case("a reader who reads", READ, Some(&reader), framed(0, &[]), "0"),
            case("the same again", READ, Some(&reader), framed(0, &[]), "0"),
            case(
                "wrong by itself",
                CHANGE,
                Some(&admin),
                framed(level.len(), &level),
                "9",
            ),
            case("no message", CHANGE, Some(&admin), framed(3, b"xyz"), "13"),
            case("cut off", CHANGE, Some(&admin), framed(9, b"xyz"), "13"),
            case("too large", CHANGE, Some(&admin), framed(5 << 20, b"x"), "8"),
            impostor,
            not_grpc,
        ]
    }

    type Outcome = (StatusCode, BTreeMap<String, String>, Bytes, Option<HeaderMap>);

    async fn outcome(answer: Response) -> (String, Outcome) {
        let (head, body) = answer.into_parts();
        let told = |name: &str| !["content-length", "grpc-status-details-bin"].contains(&name);
        let headers: BTreeMap<String, String> = head
            .headers
            .iter()
            .filter(|(name, _)| told(name.as_str()))
            .map(|(name, value)| (name.to_string(), format!("{value:?}")))
            .collect();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned();
        let code = head
            .headers
            .get(GRPC_STATUS)
            .or_else(|| trailers.as_ref()?.get(GRPC_STATUS));
        let code = code.map_or_else(
            || head.status.as_u16().to_string(),
            |code| code.to_str().unwrap().to_owned(),
        );
        (code, (head.status, headers, body.to_bytes(), trailers))
    }

    /// What was counted: requests and refusals, by what they were and how they ended.
    fn counts(chassis: &Chassis) -> BTreeMap<String, u64> {
        let text = chassis.metrics.render();
        let counted = [
            "http_requests_total{",
            "grpc_server_handled_total{",
            "errors_total{",
        ];
        text.lines()
            .filter(|line| counted.iter().any(|name| line.starts_with(name)))
            .map(|line| {
                let (series, count) = line.rsplit_once(' ').unwrap();
                (series.to_owned(), count.parse().unwrap())
            })
            .collect()
    }

    #[tokio::test]
    async fn both_ways_answer_and_count_the_same() {
        let chassis = chassis();
        let (_health, answers) = chassis.answers(Surface::new(FILE_DESCRIPTOR_SET)).unwrap();
        let familiar = Arc::new(token::Familiar::default());
        let request = |case: &Case| {
            let mut request = Request::post(case.path)
                .body(Body::from(case.body.clone()))
                .unwrap();
            for (name, value) in &case.headers {
                request.headers_mut().append(*name, value.parse().unwrap());
            }
            // As on a connection.
            request.extensions_mut().insert(Arc::clone(&familiar));
            request
        };
        let (mut direct, mut unlike) = (Vec::new(), Vec::new());
        for case in cases() {
            let (code, outcome) = outcome(answers.answer(request(&case)).await).await;
            if code != case.expected {
                unlike.push((case.name, code, outcome.1.clone()));
            }
            direct.push((case, outcome));
        }
        assert!(unlike.is_empty(), "{unlike:?}");
        let counted = counts(&chassis);
        for (case, (status, headers, body, trailers)) in direct {
            let (_, ordinary) = outcome(answers.by_routes(request(&case)).await).await;
            let same = (&ordinary.0, &ordinary.1, &ordinary.3) == (&status, &headers, &trailers);
            // What is told of the traffic so far is another thing each time.
            let is_told = case.expected == "0" || ordinary.2 == body;
            assert!(
                same && is_told,
                "{}: {ordinary:?} {headers:?} {body:?}",
                case.name
            );
        }
        assert!(counted.values().any(|count| *count > 1), "{counted:?}");
        let twice: BTreeMap<String, u64> = counted
            .into_iter()
            .map(|(series, count)| (series, 2 * count))
            .collect();
        assert_eq!(counts(&chassis), twice);
    }

    #[tokio::test]
    async fn only_methods_of_the_contract_go_the_express_way() {
        let (_health, answers) = chassis().answers(Surface::new(FILE_DESCRIPTOR_SET)).unwrap();
        let express = answers.express.as_ref().unwrap();
        assert!(express.methods.contains_key(READ));
        for path in [
            "/grpc.health.v1.Health/Check",
            "/muster.admin.v1.AdminService/Dance",
        ] {
            assert!(!express.methods.contains_key(path), "{path}");
        }
        let unknown = Request::post("/muster.admin.v1.AdminService/Dance")
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::AUTHORIZATION, bearer("admin", 600))
            .body(Body::empty())
            .unwrap();
        assert_eq!(outcome(answers.answer(unknown).await).await.0, "12");
    }
}
