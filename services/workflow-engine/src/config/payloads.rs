//! Section `engine.payloads`: where large values of runs are kept.

use std::path::{Path, PathBuf};

use muster_runtime::config::Mistakes;
use serde::{Deserialize, Serialize};

/// Longest prefix of objects: it is part of the name of each.
const LONGEST_PREFIX: usize = 256;

/// Who keeps large values of runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keeper {
    /// The store that keeps the runs.
    #[default]
    Same,
    /// An object store that speaks S3.
    S3,
}

/// Where large values of runs are kept. All but `store` is for an object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Payloads {
    /// Who keeps them: `same`, the store that keeps the runs; or `s3`.
    pub store: Keeper,
    /// The bucket. It must be there.
    pub bucket: String,
    /// Where the object store is, `https://HOST[:PORT]`, if it is not that of AWS.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// What the names of all objects begin with; each fleet needs one of its own.
    pub prefix: String,
    /// The id of the access key. None, and no file: as AWS's environment variables and the machine's role say.
    pub access_key_id: Option<String>,
    /// A file with the id of the access key.
    pub access_key_id_file: Option<PathBuf>,
    /// The secret access key; better from the environment or a file than from the file of settings.
    pub secret_access_key: Option<String>,
    /// A file with the secret access key.
    pub secret_access_key_file: Option<PathBuf>,
    /// Whether an endpoint may be `http://`: requests are signed, and what they carry can be read on the way.
    pub allow_http: bool,
    /// A file of certificate authorities in PEM that certify the object store, beside Mozilla's.
    pub certificate_authorities: Option<PathBuf>,
    /// How long a request may take, with its repetitions.
    pub answer_within_seconds: u64,
}

impl Default for Payloads {
    fn default() -> Self {
        Self {
            store: Keeper::Same,
            bucket: String::new(),
            endpoint: None,
            region: "us-east-1".to_owned(),
            prefix: "muster".to_owned(),
            access_key_id: None,
            access_key_id_file: None,
            secret_access_key: None,
            secret_access_key_file: None,
            allow_http: false,
            certificate_authorities: None,
            answer_within_seconds: 10,
        }
    }
}

impl Payloads {
    /// The access key, if one is given: its id, and its secret. Reads files.
    ///
    /// # Errors
    /// The key of the setting, and why its file cannot be used.
    pub(crate) fn keys(&self) -> Result<Option<(String, String)>, (&'static str, String)> {
        let id = given(
            self.access_key_id.as_ref(),
            self.access_key_id_file.as_deref(),
            ".access_key_id_file",
        )?;
        let secret = given(
            self.secret_access_key.as_ref(),
            self.secret_access_key_file.as_deref(),
            ".secret_access_key_file",
        )?;
        Ok(id.zip(secret))
    }

    pub(super) fn validate(&self, mistakes: &mut Mistakes) {
        let mut mistake = |key: &str, what: &str| mistakes.add(format!("engine.payloads.{key}"), what);
        if !(1..=300).contains(&self.answer_within_seconds) {
            mistake("answer_within_seconds", "must be from 1 to 300");
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let part =
            |part: &str| !part.is_empty() && part.bytes().all(plain) && part.bytes().any(|byte| byte != b'.');
        if self.prefix.len() > LONGEST_PREFIX || !self.prefix.split('/').all(part) {
            mistake(
                "prefix",
                "must be 1 to 256 letters, digits, '-', '_' and '.', in parts between '/'",
            );
        }
        let both = [
            (
                "access_key_id",
                self.access_key_id.is_some(),
                self.access_key_id_file.is_some(),
            ),
            (
                "secret_access_key",
                self.secret_access_key.is_some(),
                self.secret_access_key_file.is_some(),
            ),
        ];
        for (key, given, in_file) in both {
            if given && in_file {
                mistake(key, "is given here and in a file; leave one of the two away");
            }
        }
        let [id, secret] = both.map(|(_, given, in_file)| given || in_file);
        if id && !secret {
            mistake(
                "secret_access_key",
                "is needed with an access key's id, here or in secret_access_key_file",
            );
        }
        if secret && !id {
            mistake(
                "access_key_id",
                "is needed with a secret access key, here or in access_key_id_file",
            );
        }
        if self.store == Keeper::Same {
            if !self.bucket.is_empty() {
                mistake("store", "must be 's3' where a bucket is named");
            }
            return;
        }
        if self.bucket.is_empty() || !self.bucket.bytes().all(plain) {
            mistake(
                "bucket",
                "must be the name of a bucket: letters, digits, '-', '_' and '.'",
            );
        }
        if self.region.trim().is_empty() {
            mistake(
                "region",
                "must name a region; 'us-east-1' where the object store knows none",
            );
        }
        match self.endpoint.as_deref().map(url::Url::parse) {
            None => {}
            Some(Ok(url)) if url.has_host() && matches!(url.scheme(), "http" | "https") => {
                if !url.username().is_empty() || url.password().is_some() {
                    mistake(
                        "endpoint",
                        "must not hold a name or a password; use access_key_id and secret_access_key",
                    );
                } else if url.scheme() == "http" && !self.allow_http {
                    mistake(
                        "endpoint",
                        "is not encrypted; use https, or set allow_http to true",
                    );
                }
            }
            Some(_) => mistake("endpoint", "must be https://HOST[:PORT]"),
        }
    }
}

fn given(
    value: Option<&String>,
    file: Option<&Path>,
    key: &'static str,
) -> Result<Option<String>, (&'static str, String)> {
    let Some(path) = file else {
        return Ok(value.cloned());
    };
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| (key, format!("{}: {error}", path.display())))?;
    match text.trim() {
        "" => Err((key, format!("{}: is empty", path.display()))),
        text => Ok(Some(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(payloads: &Payloads) -> Vec<String> {
        let mut mistakes = Mistakes::default();
        payloads.validate(&mut mistakes);
        mistakes.iter().map(|(key, _)| key.to_owned()).collect()
    }

    #[test]
    fn every_mistake_is_reported_with_its_key() {
        let bad = Payloads {
            store: Keeper::S3,
            endpoint: Some("http://minio:9000".into()),
            region: String::new(),
            prefix: "a//b".into(),
            access_key_id: Some("id".into()),
            answer_within_seconds: 0,
            ..Payloads::default()
        };
        let expected = [
            "answer_within_seconds",
            "prefix",
            "secret_access_key",
            "bucket",
            "region",
            "endpoint",
        ];
        assert_eq!(keys(&bad), expected.map(|key| format!("engine.payloads.{key}")));
        let half = Payloads {
            bucket: "b".into(),
            secret_access_key: Some("secret".into()),
            secret_access_key_file: Some("file".into()),
            ..Payloads::default()
        };
        let expected = ["secret_access_key", "access_key_id", "store"];
        assert_eq!(keys(&half), expected.map(|key| format!("engine.payloads.{key}")));
        let good = Payloads {
            store: Keeper::S3,
            bucket: "payloads".into(),
            endpoint: Some("http://minio:9000".into()),
            allow_http: true,
            access_key_id: Some("id".into()),
            secret_access_key_file: Some("file".into()),
            ..Payloads::default()
        };
        assert_eq!(keys(&good), Vec::<String>::new());
    }

    #[test]
    fn keys_come_from_files_without_the_end_of_their_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        let payloads = Payloads {
            access_key_id: Some("id".into()),
            secret_access_key_file: Some(file.clone()),
            ..Payloads::default()
        };
        let (key, what) = payloads.keys().unwrap_err();
        assert_eq!(key, ".secret_access_key_file");
        assert!(what.contains("secret"), "{what}");
        std::fs::write(&file, "hush\n").unwrap();
        assert_eq!(
            payloads.keys().unwrap(),
            Some(("id".to_owned(), "hush".to_owned()))
        );
        assert_eq!(Payloads::default().keys().unwrap(), None);
    }
}
