//! `authentication`: how a call says who it is.

use super::cursor::{Cursor, Fields};
use super::{Reader, embedded};
use crate::document::{Authentication, AuthenticationProperties, Scheme};
use crate::node::Content;
use crate::problem::{listed, quoted};

/// Fields of OAuth 2.0, besides `endpoints`, which OpenID Connect discovers.
const OAUTH2: [&str; 10] = [
    "authority",
    "grant",
    "client",
    "request",
    "issuers",
    "scopes",
    "audiences",
    "username",
    "password",
    "subject",
];

const GRANTS: [&str; 4] = [
    "client_credentials",
    "password",
    "refresh_token",
    "urn:ietf:params:oauth:grant-type:token-exchange",
];

const CLIENT_AUTHENTICATIONS: [&str; 5] = [
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "none",
];

const ENCODINGS: [&str; 2] = ["application/x-www-form-urlencoded", "application/json"];

/// Why a client without an id is refused.
const CLIENT_ID: &str = "a client says who it is: add 'client.id', or 'client: {authentication: none}' where the authority asks for none";

impl Reader {
    /// An authentication where a call needs one: the name of one of `use.authentications`, or one.
    pub(super) fn authentication(&mut self, at: &Cursor<'_>) -> Option<Authentication> {
        if let Content::Text(name) = &at.node.content {
            return self.reused_authentication(at, name);
        }
        match at.child("use") {
            Some(name) => {
                self.fields(at, &["use"])?;
                let text = self.text(&name)?;
                self.reused_authentication(&name, text)
            }
            None => self.inline_authentication(at),
        }
    }

    /// An authentication that is written out.
    pub(super) fn inline_authentication(&mut self, at: &Cursor<'_>) -> Option<Authentication> {
        let names = || Scheme::NAMES.iter().map(|(name, _)| *name);
        let fields = self.object(at)?;
        if let Some(certificate) = fields.get("certificate") {
            let message = "authentication by 'certificate' is not supported: the language does not say what it consists of";
            self.wrong_name(&certificate, message);
            return None;
        }
        let allowed: Vec<&str> = names().collect();
        let fields = self.fields(at, &allowed)?;
        let mut given = fields.iter();
        let (Some((name, properties)), None) = (given.next(), given.next()) else {
            let message = format!("an authentication is exactly one of {}", listed(names()));
            self.wrong(at, message);
            return None;
        };
        let (_, scheme) = Scheme::NAMES.into_iter().find(|(known, _)| *known == name)?;
        Some(Authentication {
            scheme,
            properties: self.properties(&properties, scheme)?,
        })
    }

    fn properties(&mut self, at: &Cursor<'_>, scheme: Scheme) -> Option<AuthenticationProperties> {
        if let Some(secret) = at.child("use") {
            self.fields(at, &["use"])?;
            let name = self.text(&secret)?;
            return self
                .listed_secret(&secret, name)
                .then(|| AuthenticationProperties::Secret(name.to_owned()));
        }
        let fits = match scheme {
            Scheme::Basic | Scheme::Digest => self.texts(at, &["username", "password"], &["password"]),
            Scheme::Bearer => self.texts(at, &["token"], &["token"]),
            Scheme::Oauth2 | Scheme::Oidc => self.oauth2(at, scheme),
        };
        let template = self.template(at);
        fits?;
        template.map(AuthenticationProperties::Given)
    }

    /// An object of texts that must all be there; `confidential` are those that a document should not hold.
    fn texts(&mut self, at: &Cursor<'_>, names: &[&str], confidential: &[&str]) -> Option<()> {
        let fields = self.fields(at, names)?;
        let texts = names
            .iter()
            .map(|name| {
                let field = self.require(&fields, name)?;
                let text = self.text(&field)?;
                if confidential.contains(name) {
                    self.doubt_confidential(&field, text);
                }
                Some(())
            })
            .collect::<Vec<_>>();
        texts.into_iter().collect()
    }

    fn oauth2(&mut self, at: &Cursor<'_>, scheme: Scheme) -> Option<()> {
        let mut allowed = OAUTH2.to_vec();
        allowed.push("actor");
        if scheme == Scheme::Oauth2 {
            allowed.push("endpoints");
        }
        let fields = self.fields(at, &allowed)?;
        let authority = self
            .require(&fields, "authority")
            .and_then(|authority| self.uri(&authority, &["http", "https"]).map(drop));
        let grant = self
            .require(&fields, "grant")
            .and_then(|grant| self.grant(&grant, &fields));
        if let Some(endpoints) = fields.get("endpoints")
            && let Some(endpoints) = self.fields(&endpoints, &["token", "revocation", "introspection"])
        {
            for (name, endpoint) in endpoints.iter() {
                self.text(&endpoint);
                if name != "token" {
                    self.doubtful(
                        &endpoint,
                        format!("tokens are kept until they expire; '{name}' is never called"),
                    );
                }
            }
        }
        match fields.get("client") {
            Some(client) => self.client(&client),
            None => self.wrong_name(&fields.at, CLIENT_ID),
        }
        if let Some(request) = fields.get("request")
            && let Some(request) = self.fields(&request, &["encoding"])
            && let Some(encoding) = request.get("encoding")
        {
            self.one_of(&encoding, &ENCODINGS, "encoding");
        }
        for name in ["issuers", "scopes", "audiences"] {
            if let Some(list) = fields.get(name)
                && !is_expression(&list)
                && let Some(items) = self.items(&list)
            {
                items.iter().for_each(|item| {
                    self.text(item);
                });
            }
        }
        for name in ["subject", "actor"] {
            if let Some(token) = fields.get(name) {
                self.texts(&token, &["token", "type"], &["token"]);
            }
        }
        for name in ["username", "password"] {
            if let Some(field) = fields.get(name)
                && let Some(text) = self.text(&field)
                && name == "password"
            {
                self.doubt_confidential(&field, text);
            }
        }
        authority.and(grant)
    }

    fn grant(&mut self, at: &Cursor<'_>, fields: &Fields<'_>) -> Option<()> {
        let text = self.text(at)?;
        if text == "authorization_code" {
            let message = "the grant 'authorization_code' needs a person at a browser, which a workflow does not have; \
                           use 'client_credentials', or 'refresh_token' with a token that somebody obtained";
            self.wrong(at, message);
            return None;
        }
        self.one_of(at, &GRANTS, "grant")?;
        let needed: &[&str] = match text {
            "password" => &["username", "password"],
            "refresh_token" | "urn:ietf:params:oauth:grant-type:token-exchange" => &["subject"],
            _ => &[],
        };
        for name in needed {
            if !fields.has(name) {
                let hint = if text == "refresh_token" {
                    "; 'subject.token' is the refresh token"
                } else {
                    ""
                };
                self.wrong_name(&fields.at, format!("the grant '{text}' needs '{name}'{hint}"));
                return None;
            }
        }
        Some(())
    }

    fn client(&mut self, at: &Cursor<'_>) {
        let Some(fields) = self.fields(at, &["id", "secret", "assertion", "authentication"]) else {
            return;
        };
        for name in ["id", "secret", "assertion"] {
            if let Some(field) = fields.get(name)
                && let Some(text) = self.text(&field)
                && name != "id"
            {
                self.doubt_confidential(&field, text);
            }
        }
        let Some(method) = fields.get("authentication") else {
            if !fields.has("id") {
                self.wrong_name(&fields.at, CLIENT_ID);
            }
            return;
        };
        self.one_of(&method, &CLIENT_AUTHENTICATIONS, "client authentication");
        let needed: &[&str] = match self.text(&method) {
            Some("client_secret_basic" | "client_secret_post" | "client_secret_jwt") => &["id", "secret"],
            Some("private_key_jwt") => &["id", "assertion"],
            _ => &[],
        };
        for name in needed {
            if !fields.has(name) {
                self.wrong_name(
                    &fields.at,
                    format!("this client authentication needs 'client.{name}'"),
                );
            }
        }
    }

    /// One of these names, or an expression.
    fn one_of(&mut self, at: &Cursor<'_>, names: &[&str], what: &str) -> Option<()> {
        let text = self.text(at)?;
        if names.contains(&text) || is_expression(at) {
            return Some(());
        }
        let nearest = muster_api::names::suggestion(text, names.iter().copied());
        let known = listed(names.iter().copied());
        self.wrong(
            at,
            format!("no such {what} {}; there are {known}{nearest}", quoted(text)),
        );
        None
    }

    /// What is written in a document is read by everyone who reads the document.
    fn doubt_confidential(&mut self, at: &Cursor<'_>, text: &str) {
        if embedded(text).is_none() {
            let message = "everyone who reads the document or its runs reads this too; list a secret in 'use.secrets' and \
                           write 'use: NAME' or ${ $secrets.NAME }";
            self.doubtful(at, message);
        }
    }
}

fn is_expression(at: &Cursor<'_>) -> bool {
    matches!(&at.node.content, Content::Text(text) if embedded(text).is_some())
}
