//! Bodies of HTTP answers, bounded, and what the status of an answer means.

use reqwest::{Response, StatusCode};

use super::{Failure, Kind};

/// Longest text of a refusal that is repeated in an error.
const LONGEST_TEXT: usize = 2_000;

/// The whole body, if it has no more than `most_bytes`.
pub(super) async fn read(mut answer: Response, most_bytes: usize, target: &str) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    loop {
        let chunk = answer.chunk().await.map_err(|error| {
            let what = crate::outbound::described(&error);
            Failure::new(
                Kind::Communication,
                502,
                format!("'{target}' broke its answer off: {what}"),
            )
        })?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len() + chunk.len() > most_bytes {
            let detail = format!(
                "the answer of '{target}' is over the limit of {most_bytes} bytes; ask for less, or raise \
                 'engine.max_payload_bytes'"
            );
            return Err(Failure::new(Kind::Runtime, 413, detail));
        }
        body.extend_from_slice(&chunk);
    }
}

/// The failure that the status of an answer means, with what the body says.
pub(super) fn refusal(target: &str, status: StatusCode, said: &str) -> Failure {
    let kind = match status.as_u16() {
        401 => Kind::Authentication,
        403 => Kind::Authorization,
        408 | 504 => Kind::Timeout,
        _ => Kind::Communication,
    };
    let said: String = said.trim().chars().take(LONGEST_TEXT).collect();
    let detail = if said.is_empty() {
        format!("'{target}' answered {status}")
    } else {
        format!("'{target}' answered {status}: {said}")
    };
    Failure::new(kind, status.as_u16(), detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_failure_of_its_kind() {
        for (status, kind) in [
            (401, Kind::Authentication),
            (403, Kind::Authorization),
            (404, Kind::Communication),
            (504, Kind::Timeout),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let failure = refusal("https://x.test/", status, " no ");
            assert_eq!((failure.kind, failure.status), (kind, status.as_u16()));
            assert!(failure.detail.ends_with(": no"), "{}", failure.detail);
        }
    }
}
