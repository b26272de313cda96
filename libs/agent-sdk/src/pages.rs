//! Pages of a task's push configurations, by their ids. A cursor is the id of the last one of a page, so that those that come and go
//! shift nothing.

use a2a_pb::proto::{self as pb, TaskPushNotificationConfig};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_api::error::Error;
use tonic::Status;

/// Configurations of a page where the caller does not say.
const DEFAULT_SIZE: usize = 50;
/// Most configurations of a page.
const MOST: usize = 100;

/// What is asked for.
pub(crate) struct Page {
    size: usize,
    /// Id of the last one of the page before.
    after: Option<String>,
}

impl Page {
    /// Reads a request.
    ///
    /// # Errors
    /// A size below zero, and a token that nobody gave.
    pub(crate) fn read(request: &pb::ListTaskPushNotificationConfigsRequest) -> Result<Self, Box<Status>> {
        let invalid =
            |field: &str, message: String| Box::new(Status::from(Error::invalid_field(field, message)));
        let size = match usize::try_from(request.page_size) {
            Ok(0) => DEFAULT_SIZE,
            Ok(size) => size.min(MOST),
            Err(_) => {
                let message = format!("is {}; 1 to {MOST} are allowed", request.page_size);
                return Err(invalid("page_size", message));
            }
        };
        let decoded = || String::from_utf8(URL_SAFE_NO_PAD.decode(&request.page_token).ok()?).ok();
        let after = match request.page_token.as_str() {
            "" => None,
            _ => Some(decoded().ok_or_else(|| {
                let message = "is not one that this agent made; start again without a page token";
                invalid("page_token", message.to_owned())
            })?),
        };
        Ok(Self { size, after })
    }

    /// The page of these configurations.
    pub(crate) fn of(
        &self,
        mut configs: Vec<TaskPushNotificationConfig>,
    ) -> pb::ListTaskPushNotificationConfigsResponse {
        configs.sort_by(|one, other| one.id.cmp(&other.id));
        if let Some(after) = &self.after {
            configs.retain(|config| config.id > *after);
        }
        let has_more = configs.len() > self.size;
        configs.truncate(self.size);
        let last = configs.last().filter(|_| has_more);
        let next_page_token = last.map(|last| URL_SAFE_NO_PAD.encode(&last.id));
        pb::ListTaskPushNotificationConfigsResponse {
            next_page_token: next_page_token.unwrap_or_default(),
            configs,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(size: i32, token: String) -> pb::ListTaskPushNotificationConfigsRequest {
        pb::ListTaskPushNotificationConfigsRequest {
            page_size: size,
            page_token: token,
            ..Default::default()
        }
    }

    proptest! {
        #[test]
        fn pages_have_each_once(ids in prop::collection::btree_set("[a-z]{1,3}", 0..12), size in 1..5_i32) {
            let configs: Vec<_> = ids
                .iter()
                .rev()
                .map(|id| TaskPushNotificationConfig { id: id.clone(), ..Default::default() })
                .collect();
            let (mut seen, mut token) = (Vec::new(), String::new());
            loop {
                let page = Page::read(&request(size, token)).unwrap().of(configs.clone());
                seen.extend(page.configs.into_iter().map(|config| config.id));
                token = page.next_page_token;
                if token.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(seen, ids.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_nobody_gave_is_refused() {
        assert!(Page::read(&request(-1, String::new())).is_err());
        assert!(Page::read(&request(1, "nobody gave this".to_owned())).is_err());
        assert_eq!(Page::read(&request(0, String::new())).unwrap().size, DEFAULT_SIZE);
        assert_eq!(Page::read(&request(i32::MAX, String::new())).unwrap().size, MOST);
    }
}
