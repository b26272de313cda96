//! What one call knows that its request does not say: the secrets of its document.

use std::collections::BTreeMap;

use muster_workflow_dsl::request::{Authentication, Properties};
use muster_workflow_dsl::secret::{AUTHORIZATION, Unmarking};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Failure, Kind};
use crate::secrets::{Grant, Redaction, Secrets};

/// The secrets of one call: put into what goes out, and taken out of what comes back.
pub struct Session {
    secrets: BTreeMap<String, Value>,
    unmarking: Unmarking,
    redaction: Redaction,
    /// The marker of what the call's authentication sends.
    authorization: String,
}

impl Session {
    /// Reads the secrets that the call may know.
    ///
    /// # Errors
    /// One of them is not there.
    pub async fn open(secrets: &Secrets, grant: &Grant) -> Result<Self, Failure> {
        let (unmarking, secrets) = secrets.unmarking(grant).await?;
        Ok(Self {
            redaction: Redaction::new(&grant.nonce, &secrets),
            authorization: grant.nonce.marker(&AUTHORIZATION),
            unmarking,
            secrets,
        })
    }

    /// The text as it goes out.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        self.unmarking.text(text).into_owned()
    }

    /// The address as it goes out.
    #[must_use]
    pub fn address(&self, text: &str) -> String {
        self.unmarking.address(text)
    }

    /// The value as it goes out.
    #[must_use]
    pub fn value(&self, value: &Value) -> Value {
        self.unmarking.value(value)
    }

    /// What stands for what the header `Authorization` says after the scheme.
    #[must_use]
    pub fn authorization(&self) -> &str {
        &self.authorization
    }

    /// What takes secrets out of what comes back.
    #[must_use]
    pub fn redaction(&self) -> &Redaction {
        &self.redaction
    }

    /// An outcome without secrets.
    ///
    /// # Errors
    /// As it was.
    pub fn cleaned(&self, outcome: Result<Value, Failure>) -> Result<Value, Failure> {
        match outcome {
            Ok(value) => Ok(self.redaction.value(value)),
            Err(failure) => Err(self.redaction.failure(failure)),
        }
    }

    /// Keeps a text out of what comes back that was made of secrets, or obtained with them.
    pub fn conceal(&mut self, secret: &str) {
        self.redaction.learn(secret, &self.authorization);
    }

    /// What the header `Authorization` says after the scheme: from now on `$authorization.parameter` stands for it.
    pub fn authorize(&mut self, parameter: &str) {
        self.conceal(parameter);
        self.unmarking.learn(self.authorization.clone(), parameter);
    }

    /// What an authentication needs.
    ///
    /// # Errors
    /// The secret or the document does not say what the scheme needs.
    pub fn properties<T: DeserializeOwned>(&self, authentication: &Authentication) -> Result<T, Failure> {
        let scheme = authentication.scheme;
        let (value, source) = match &authentication.properties {
            Properties::With(value) => (self.value(value), "the document".to_owned()),
            Properties::Secret(name) => {
                let value = self.secrets.get(name).cloned().unwrap_or_default();
                (value, format!("the secret '{name}'"))
            }
        };
        if !value.is_object() {
            let detail = format!("{source} must be an object with what authentication by '{scheme}' needs");
            return Err(Failure::new(Kind::Configuration, 400, detail));
        }
        // The error of serde names fields and repeats no values but numbers and texts of the wrong type: those are left away.
        T::deserialize(value).map_err(|error| {
            let what = error.to_string();
            let what = if what.starts_with("missing field") {
                what
            } else {
                "a field has the wrong type".to_owned()
            };
            let detail = format!("authentication by '{scheme}': {what} in {source}");
            Failure::new(Kind::Configuration, 400, detail)
        })
    }
}
