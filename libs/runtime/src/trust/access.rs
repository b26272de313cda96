//! What a request may do, for handlers: its caller, and the right word where a handler refuses something itself.
//!
//! The gate has put one into the extensions of every request. A handler that knows more than the path asks it: the operation of a
//! JSON binding ([`Access::operation`]), the agent ([`Access::target`]), the namespace ([`Access::namespace`]), or whose a task or a
//! run is ([`Access::sees`]). Each refusal is in the audit log.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::Extensions;
use muster_api::error::{Error, Reason};

use super::audit::{Entry, Event, Urgency};
use super::caller::Caller;
use super::gate::Gate;
use super::grants::Grants;
use super::policy::{self, Need, Record, Rule};

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    caller: Arc<Caller>,
    context: Option<Arc<Context>>,
}

/// What stands around the request.
pub(super) struct Context {
    pub(super) gate: Arc<Gate>,
    /// Who holds the connection, where that is another than the caller.
    pub(super) actor: Option<Arc<Caller>>,
    pub(super) address: IpAddr,
    pub(super) trace: String,
    pub(super) action: String,
    pub(super) object: String,
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Access").field(&self.caller.key()).finish()
    }
}

impl Access {
    pub(super) fn new(caller: Arc<Caller>, context: Context) -> Self {
        Self {
            caller,
            context: Some(Arc::new(context)),
        }
    }

    /// What this caller may do where no request is at hand: for what was taken in earlier and is done now.
    #[must_use]
    pub const fn of(caller: Arc<Caller>) -> Self {
        Self {
            caller,
            context: None,
        }
    }

    /// The same caller where its grants were asked about already, and the call has become another one.
    #[must_use]
    pub fn beyond_grants(&self) -> Self {
        Self {
            caller: self.caller.with_grants(Grants::default()),
            context: self.context.clone(),
        }
    }

    /// That of a request; nobody's where no gate stood before the handler.
    #[must_use]
    pub fn in_extensions(extensions: &Extensions) -> Self {
        extensions
            .get::<Self>()
            .cloned()
            .unwrap_or_else(|| Self::of(Caller::unknown()))
    }

    /// On whose behalf the request is made.
    #[must_use]
    pub const fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// Whether the caller, or the service that calls on its behalf, is one of our services; an agent is none.
    #[must_use]
    pub fn is_service(&self) -> bool {
        use super::caller::{Kind, Role};
        (self.caller.kind == Kind::Service && !self.caller.roles.has(Role::Agent))
            || self
                .context
                .as_ref()
                .is_some_and(|context| context.actor.is_some())
    }

    /// Whether the caller may do this operation of A2A.
    ///
    /// # Errors
    /// It may not.
    pub fn operation(&self, name: &str) -> Result<(), Error> {
        let rule = policy::of_operation(name);
        match &self.context {
            Some(context) => context.gate.decide(&self.caller, context, rule, name),
            None if rule.need.is_met_by(&self.caller) => Ok(()),
            None => {
                let message = format!("{} is needed", rule.need.describe());
                Err(Error::new(Reason::PermissionDenied, message))
            }
        }
    }

    /// Whether the caller may reach an agent, or `skill:SKILL`.
    ///
    /// # Errors
    /// It may not.
    pub fn target(&self, target: &str) -> Result<(), Error> {
        if self.sees_all() || self.caller.grants.reaches_target(target) {
            return Ok(());
        }
        let message = format!("'{}' may not reach '{target}'", self.caller.subject);
        Err(self.refuse(target, "the caller has no grant for the target", message))
    }

    /// Whether who calls may do what is an agent's own: register under its id, take out what was left for it (also for
    /// `skill:SKILL`). That is the agent of that name, by its certificate or its token, whoever has a grant that names the target,
    /// one of our services by its token, and an admin. By a certificate, a service of ours is itself and no agent.
    ///
    /// # Errors
    /// It may not.
    pub fn acts_as(&self, target: &str) -> Result<(), Error> {
        self.target(target)?;
        let actor = self.context.as_ref().and_then(|context| context.actor.as_ref());
        let who = actor.unwrap_or(&self.caller);
        if who.acts_as(target) {
            return Ok(());
        }
        let message = format!(
            "'{}' may not act as '{target}'; an agent does so under its own name, others need a grant for it",
            who.subject
        );
        Err(self.refuse(
            target,
            "who calls is not the agent, and has no grant that names it",
            message,
        ))
    }

    /// Whether the caller may reach what is in a namespace.
    ///
    /// # Errors
    /// It may not.
    pub fn namespace(&self, namespace: &str) -> Result<(), Error> {
        if self.sees_all() || self.caller.grants.reaches_namespace(namespace) {
            return Ok(());
        }
        let message = format!(
            "'{}' may not reach the namespace '{namespace}'",
            self.caller.subject
        );
        Err(self.refuse(namespace, "the caller has no grant for the namespace", message))
    }

    /// The same for one entry of a list, of which nothing needs to be said.
    #[must_use]
    pub fn reaches_namespace(&self, namespace: &str) -> bool {
        self.sees_all() || self.caller.grants.reaches_namespace(namespace)
    }

    /// The same for an agent, or `skill:SKILL`.
    #[must_use]
    pub fn reaches_target(&self, target: &str) -> bool {
        self.sees_all() || self.caller.grants.reaches_target(target)
    }

    /// Whether the caller may reach every namespace, where what is told cannot be parted by them.
    ///
    /// # Errors
    /// It may not.
    pub fn every_namespace(&self) -> Result<(), Error> {
        if self.sees_all() || self.caller.grants.namespaces.is_none() {
            return Ok(());
        }
        let message = format!("'{}' may not hear of every namespace", self.caller.subject);
        Err(self.refuse("", "the caller has grants for some namespaces only", message))
    }

    /// Whether the caller sees everybody's.
    #[must_use]
    pub fn sees_all(&self) -> bool {
        self.caller.sees_all()
    }

    /// Whether the caller may see what `owner` has. If not, it is to hear what it would if there were nothing.
    #[must_use]
    pub fn sees(&self, owner: Option<&str>, what: &str) -> bool {
        let may = self.caller.may_see(owner);
        if !may {
            self.note(
                Event::AccessRefused,
                what,
                "it is another caller's, or nobody's who is known",
            );
        }
        may
    }

    /// A request is refused because the caller has made as many as it may; `limit` says how many that is.
    pub fn limited(&self, limit: &str) {
        if let Some(context) = &self.context {
            context.limited(&self.caller, limit);
        }
    }

    fn refuse(&self, object: &str, why: &str, message: String) -> Error {
        self.note(Event::AccessRefused, object, why);
        Error::new(Reason::PermissionDenied, message)
    }

    fn note(&self, event: Event, object: &str, why: &str) {
        if let Some(context) = &self.context {
            context.note(event, &self.caller, object, why);
        }
    }
}

impl Context {
    pub(super) fn entry(
        &self,
        event: Event,
        caller: &Caller,
        action: &str,
        object: &str,
        why: &str,
    ) -> Entry {
        let roles: Vec<&str> = caller.roles.iter().map(super::caller::Role::name).collect();
        let actor = self.actor.as_ref().map_or("", |actor| &*actor.subject);
        let object = if object.is_empty() { &self.object } else { object };
        Entry::new(event)
            .with("user", &caller.subject)
            .with("issuer", caller.issuer.as_deref().unwrap_or_default())
            .with("roles", &roles.join(" "))
            .with("through", actor)
            .with("action", action)
            .with("object", object)
            .with("reason", why)
            .with("source_ip", &self.address.to_string())
            .with("trace_id", &self.trace)
    }

    pub(super) fn note(&self, event: Event, caller: &Caller, object: &str, why: &str) {
        tracing::warn!(
            caller = &*caller.subject,
            action = self.action,
            object,
            address = %self.address,
            why,
            "refused"
        );
        self.count(event, caller);
        if let Some(log) = self.gate.audit() {
            log.note(self.entry(event, caller, &self.action, object, why));
        }
    }

    /// As [`Self::note`], of what may come in floods: the audit log has the first, and how many followed within a minute.
    fn limited(&self, caller: &Caller, limit: &str) {
        self.count(Event::RateLimited, caller);
        if let Some(limited) = self.gate.limited() {
            let is_first = limited.note(caller, |line| {
                line.with("detail", limit)
                    .with("action", &self.action)
                    .with("source_ip", &self.address.to_string())
                    .with("trace_id", &self.trace)
            });
            if is_first {
                tracing::warn!(caller = &*caller.subject, action = self.action, limit, "limited");
            }
        }
    }

    /// Counts a refusal, for an operator who looks now.
    fn count(&self, event: Event, caller: &Caller) {
        let refusals = self.gate.refusals();
        if caller.is_unknown() {
            refusals.note(event.name(), &self.address.to_string());
        } else {
            refusals.note(event.name(), &caller.subject);
        }
    }
}

impl Gate {
    /// Whether a caller may do this, and the line that says so.
    pub(super) fn decide(
        &self,
        caller: &Arc<Caller>,
        context: &Context,
        rule: Rule,
        action: &str,
    ) -> Result<(), Error> {
        // What keeps the fleet together is asked of who calls, and everything else of the one on whose behalf it is.
        let asked = match (rule.need, &context.actor) {
            (Need::Service, Some(actor)) => actor,
            _ => caller,
        };
        if !rule.need.is_met_by(asked) {
            let needed = rule.need.describe();
            let object = if action == context.action { "" } else { action };
            context.note(
                Event::AccessRefused,
                caller,
                object,
                &format!("{needed} is needed"),
            );
            return Err(Error::new(
                Reason::PermissionDenied,
                format!("'{}' may not do this: {needed} is needed", caller.subject),
            ));
        }
        let urgency = match rule.record {
            Record::Read | Record::Upkeep if !self.records_reads() => return Ok(()),
            // Its operation is asked about later, and says what it is.
            _ if rule.need == Need::Operation || rule.need == Need::Nothing => return Ok(()),
            Record::Read | Record::Upkeep | Record::Work => Urgency::Soon,
            Record::Change => Urgency::Now,
        };
        let Some(log) = self.audit() else {
            return Ok(());
        };
        let entry = context.entry(Event::Allowed, caller, action, "", "");
        log.append(entry, urgency).map_err(|what| {
            Error::new(Reason::AuditUnavailable, what).with_retry_after(super::gate::AUDIT_RETRY)
        })
    }
}
