//! The protocol's errors, as each binding numbers them, and what an outcome has to be to be one of them.

use tonic::Code as Grpc;

use crate::driver::{Answer, Code, Outcome, Refusal};

/// An error that A2A defines.
#[derive(Debug, Clone, Copy)]
pub struct Error {
    /// `ErrorInfo.reason`.
    pub reason: &'static str,
    json_rpc: i64,
    grpc: Grpc,
    http: u16,
}

const fn error(reason: &'static str, json_rpc: i64, grpc: Grpc, http: u16) -> Error {
    Error {
        reason,
        json_rpc,
        grpc,
        http,
    }
}

pub const TASK_NOT_FOUND: Error = error("TASK_NOT_FOUND", -32001, Grpc::NotFound, 404);
pub const TASK_NOT_CANCELABLE: Error = error("TASK_NOT_CANCELABLE", -32002, Grpc::FailedPrecondition, 400);
pub const PUSH_NOT_SUPPORTED: Error = error(
    "PUSH_NOTIFICATION_NOT_SUPPORTED",
    -32003,
    Grpc::FailedPrecondition,
    400,
);
pub const UNSUPPORTED_OPERATION: Error =
    error("UNSUPPORTED_OPERATION", -32004, Grpc::FailedPrecondition, 400);
pub const CONTENT_TYPE_NOT_SUPPORTED: Error =
    error("CONTENT_TYPE_NOT_SUPPORTED", -32005, Grpc::InvalidArgument, 400);
pub const INVALID_AGENT_RESPONSE: Error = error("INVALID_AGENT_RESPONSE", -32006, Grpc::Internal, 500);
pub const EXTENDED_CARD_NOT_CONFIGURED: Error = error(
    "EXTENDED_AGENT_CARD_NOT_CONFIGURED",
    -32007,
    Grpc::FailedPrecondition,
    400,
);
pub const EXTENSION_REQUIRED: Error = error(
    "EXTENSION_SUPPORT_REQUIRED",
    -32008,
    Grpc::FailedPrecondition,
    400,
);
pub const VERSION_NOT_SUPPORTED: Error =
    error("VERSION_NOT_SUPPORTED", -32009, Grpc::FailedPrecondition, 400);

/// The outcome is this error: its number on the binding, its reason and A2A's domain in the details.
pub fn refused(outcome: Outcome, expected: Error, what: &str) -> Refusal {
    let refusal = outcome.map_or_else(
        |refusal| refusal,
        |Answer { value, .. }| panic!("{what}: {} is due, but it is answered: {value}", expected.reason),
    );
    let right = match refusal.code {
        Code::JsonRpc(code) => code == expected.json_rpc,
        Code::Grpc(code) => code == expected.grpc,
        Code::Http(code) => code == expected.http,
        Code::Broken => false,
    };
    assert!(right, "{what}: {expected:?} is due, not {refusal}");
    assert_eq!(
        refusal.info(),
        Some((expected.reason, "a2a-protocol.org")),
        "{what}: ErrorInfo with reason and domain is due: {refusal}"
    );
    assert!(!refusal.message.is_empty(), "{what}: a message is due: {refusal}");
    refusal
}

/// The outcome says that parameters are invalid. A2A has no error of its own for that; the bindings have.
pub fn invalid(outcome: Outcome, what: &str) {
    let refusal = outcome.map_or_else(
        |refusal| refusal,
        |Answer { value, .. }| panic!("{what}: invalid parameters, but it is answered: {value}"),
    );
    let right = match refusal.code {
        Code::JsonRpc(code) => code == -32602,
        Code::Grpc(code) => code == Grpc::InvalidArgument,
        Code::Http(code) => code == 400,
        Code::Broken => false,
    };
    assert!(
        right,
        "{what}: -32602, INVALID_ARGUMENT or 400 is due, not {refusal}"
    );
    assert!(!refusal.message.is_empty(), "{what}: a message is due: {refusal}");
}

/// The outcome says that who calls is not known. All bindings say it before they read a request, and so by their transport.
pub fn unauthenticated(outcome: Outcome, what: &str) -> Refusal {
    let refusal = outcome.map_or_else(
        |refusal| refusal,
        |Answer { value, .. }| panic!("{what}: credentials are due, but it is answered: {value}"),
    );
    let right = match refusal.code {
        Code::Grpc(code) => code == Grpc::Unauthenticated,
        Code::Http(code) => code == 401,
        Code::JsonRpc(_) | Code::Broken => false,
    };
    assert!(right, "{what}: UNAUTHENTICATED or 401 is due, not {refusal}");
    refusal
}

/// The outcome says that the caller may not do this. JSON-RPC has no number of its own for that; the reason says it.
pub fn forbidden(outcome: Outcome, what: &str) -> Refusal {
    let refusal = outcome.map_or_else(
        |refusal| refusal,
        |Answer { value, .. }| panic!("{what}: a role is due, but it is answered: {value}"),
    );
    let right = match refusal.code {
        Code::Grpc(code) => code == Grpc::PermissionDenied,
        Code::Http(code) => code == 403,
        Code::JsonRpc(_) => refusal
            .info()
            .is_some_and(|(reason, _)| reason == "PERMISSION_DENIED"),
        Code::Broken => false,
    };
    assert!(right, "{what}: PERMISSION_DENIED or 403 is due, not {refusal}");
    refusal
}
