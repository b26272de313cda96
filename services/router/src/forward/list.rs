//! The tasks of a target that several instances have: one list, in the order of A2A, page by page ([`crate::pages`]).
//!
//! Each store is asked for its page and the pages are merged; a page token of the router says where each stands. With one instance
//! nothing is merged: the request and the agent's own page token pass through.
//!
//! Instances whose cards say that they share a store ([`SHARED_TASKS`](muster_api::extension::SHARED_TASKS)) are one store: one
//! of them is asked, and the next where that one does not answer, so that one that has died and whose lease lasts hides nothing.
//!
//! A list that lacks something looks like one that is complete: A2A has no word for it. So where an instance cannot be asked, the
//! list is refused with RetryInfo, unless another instance shows the same store, or the instance has left: its tasks have left
//! with it. A page token that names what has left is refused, for the list to begin anew.
//!
//! A list has the tasks of whoever asks, and an admin's has all. An agent that tells callers apart
//! ([`TELLS_CALLERS_APART`](muster_api::extension::TELLS_CALLERS_APART)) gives no others and counts none. Of one that does not, what is another's,
//! or nobody's who is known, is left out of each page before pages are merged, so that they are filled with what is the caller's; and as
//! the agent's total would tell how much others have, only what is the caller's on its first page is counted. A page token is
//! good for the caller that it was made for.
//!
//! `totalSize` is what the stores said for the first page, added up. Of more instances than are asked the list is given only where
//! those that were asked are of one agent and share one store, as the others are taken to do then.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::HeaderMap;
use muster_api::a2a::{ListTasksRequest, ListTasksResponse};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::deliver::Delivery;
use super::failure::Failure;
use super::search::Spoken;
use super::{Forwarder, Reply, Scope, Times, decode, encode};
use crate::call::Call;
use crate::error::Error;
use crate::fleet::instance::{Availability, by_store};
use crate::fleet::{Instance, Key};
use crate::operation::{ListTasks, Operation as _};
use crate::pages::{self, Cursor, Merger, Source};
use crate::peek::{Asked, Encoded};

/// Instances that are asked at once.
const AT_ONCE: usize = 16;

/// Instances that are asked for the first page.
const MOST: usize = 256;

/// Further pages that stores are asked for, for one page of the list; then it is shorter than it could be.
const MOST_PAGES: usize = 64;

/// Tasks that a store is asked for at the least: by those, instances that share a store are found out.
const LEAST: usize = 20;

/// How long an instance may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of all pages that are held for one page of the list, in answers of the largest size.
const MOST_ANSWERS: usize = 4;

/// A page that is to be merged.
pub(super) struct Listing {
    request: ListTasksRequest,
    size: usize,
    /// From the page token; none for the first page.
    total: Option<i32>,
    sources: Vec<Source>,
    /// Instances that are too many to be asked.
    unasked: usize,
}

/// Counts the bytes of pages that are held.
struct Budget {
    held: usize,
    limit: usize,
    instances: usize,
}

impl Budget {
    fn take(&mut self, bytes: usize) -> Result<(), Error> {
        self.held = self.held.saturating_add(bytes);
        if self.held > self.limit {
            return Err(Error::PageTooLarge {
                instances: self.instances,
                limit: self.limit,
            });
        }
        Ok(())
    }
}

impl Forwarder {
    /// What is to be merged; nothing where one instance answers for all.
    pub(super) fn listing(
        &self,
        call: &Call,
        scope: &Scope,
        request: &Encoded,
    ) -> Result<Option<Listing>, Error> {
        let Scope::Serving { target, skills } = scope else {
            return Ok(None);
        };
        let instances = self.parts.view.read().serving(target.as_ref(), skills)?;
        let request = request.with_tenant("").to_vec();
        let request = ListTasksRequest::decode(request.as_slice()).map_err(|error| Error::InvalidField {
            field: "request".to_owned(),
            message: error.to_string(),
        })?;
        let token = request.page_token.as_str();
        let is_ours = Cursor::is_ours(token);
        // Then there is nothing to be left out.
        let is_own = |instance: &Arc<Instance>| instance.tells_callers_apart || call.access.sees_all();
        if instances.len() <= 1 && !is_ours && instances.iter().all(is_own) {
            return Ok(None);
        }
        let size = pages::size(request.page_size).map_err(|message| Error::InvalidField {
            field: "pageSize".to_owned(),
            message,
        })?;
        let mut unasked = 0;
        let (total, sources) = if token.is_empty() {
            let stores = by_store(&instances);
            unasked = stores.len().saturating_sub(MOST);
            let sources = stores.into_iter().take(MOST);
            let sources = sources.filter_map(|store| self.source_of(store));
            (None, sources.collect())
        } else {
            let cursor = Cursor::decode(token).ok_or(Error::InvalidPageToken {
                what: "is not one that this router made for this target",
            })?;
            if cursor.caller != hashed(&call.caller) {
                return Err(Error::InvalidPageToken {
                    what: "is not one that this router made for this caller",
                });
            }
            // Nobody gets at other instances than those of the target by means of a page token.
            let serves = |source: &Source, id: &String| {
                instances
                    .iter()
                    .any(|instance| instance.id.agent == source.agent && instance.id.instance == *id)
            };
            let mut sources = cursor.sources;
            for source in &mut sources {
                let mut named = std::mem::take(&mut source.instances);
                named.retain(|id| serves(source, id));
                let others = instances.iter().filter(|instance| {
                    source.store.is_some()
                        && instance.shared_tasks.as_deref() == source.store.as_deref()
                        && instance.id.agent == source.agent
                        && !named.contains(&instance.id.instance)
                });
                let others: Vec<String> = others.map(|instance| instance.id.instance.clone()).collect();
                named.extend(others);
                source.instances = named;
                if source.instances.is_empty() {
                    return Err(Error::InvalidPageToken {
                        what: "names instances that have left",
                    });
                }
            }
            if sources.len() > MOST {
                return Err(Error::InvalidPageToken {
                    what: "names too many instances",
                });
            }
            (Some(cursor.total), sources)
        };
        Ok(Some(Listing {
            request,
            size,
            total,
            sources,
            unasked,
        }))
    }

    /// The store of these instances, from the beginning. Another one of them is asked each time, those that leave after the others.
    fn source_of(&self, mut store: Vec<Arc<Instance>>) -> Option<Source> {
        let count = store.len();
        store.rotate_left((self.parts.random)(count).min(count));
        store.sort_by_key(|instance| instance.availability == Availability::Leaving);
        let mut instances = store.iter();
        let Key { agent, instance } = instances.next()?.key();
        let mut source = Source::new(agent, instance);
        source
            .instances
            .extend(instances.map(|other| other.id.instance.clone()));
        source.store = store.first()?.shared_tasks.as_deref().map(str::to_owned);
        Some(source)
    }

    /// Asks and merges.
    pub(super) async fn list(
        &self,
        call: &Call,
        scope: &Scope,
        listing: Listing,
        times: Times,
    ) -> Result<Reply<Bytes>, Error> {
        let Listing {
            request,
            size,
            total,
            sources,
            unasked,
        } = listing;
        let inquiry = Inquiry {
            forwarder: self,
            call,
            scope,
            request,
            asked: size.max(LEAST),
            times,
        };
        let mut budget = Budget {
            held: 0,
            limit: self.parts.limits.answer_bytes.saturating_mul(MOST_ANSWERS),
            instances: sources.len(),
        };
        let mut pages = Vec::new();
        let questions: Vec<_> = sources
            .into_iter()
            .map(|source| inquiry.page_of(source))
            .collect();
        let mut answers = stream::iter(questions).buffered(AT_ONCE);
        while let Some(answer) = answers.try_next().await? {
            if let Some((source, page, bytes)) = answer {
                budget.take(bytes)?;
                pages.push((source, page));
            }
        }
        drop(answers);
        if pages.is_empty() {
            return Err(Error::NoInstance {
                target: scope.name(),
                why: "all have just left".to_owned(),
                cause: "none",
                retry_after: Duration::from_secs(1),
            });
        }
        let (pages, total) = match total {
            Some(total) => (pages, total),
            None => pages::by_store(pages),
        };
        let filled = pages.iter().filter(|(_, page)| !page.tasks.is_empty()).count();
        let agents = pages.iter().map(|(source, _)| source.agent.as_str());
        let is_one_agent = agents.collect::<std::collections::BTreeSet<_>>().len() <= 1;
        if unasked > 0 && !(filled <= 1 && is_one_agent) {
            return Err(Error::InvalidField {
                field: "tenant".to_owned(),
                message: format!(
                    "'{}' has {} instances, and at most {MOST} are asked for their tasks; name one agent",
                    scope.name(),
                    unasked + MOST
                ),
            });
        }
        let mut merger = Merger::new(size, pages);
        for _ in 0..MOST_PAGES {
            let Some((number, source)) = merger.go_on() else {
                break;
            };
            let source = source.clone();
            match inquiry.page_of(source).await? {
                Some((_, page, bytes)) => {
                    budget.take(bytes)?;
                    merger.add(number, page);
                }
                // It has left just now, and its tasks with it.
                None => merger.add(number, ListTasksResponse::default()),
            }
        }
        let (tasks, mut sources) = merger.finish();
        for source in &mut sources {
            source.instances.truncate(pages::NAMED);
        }
        let page = ListTasksResponse {
            tasks,
            next_page_token: Cursor {
                caller: hashed(&call.caller),
                total,
                sources,
            }
            .encode(),
            page_size: i32::try_from(size).unwrap_or(i32::MAX),
            total_size: total,
        };
        Ok(Reply {
            message: encode(&page),
            // Many have answered.
            instance: Arc::new(Key {
                agent: scope.name(),
                instance: String::new(),
            }),
            extensions: HeaderMap::new(),
        })
    }
}

impl Forwarder {
    /// The page of the only instance, without the tasks that the caller may not see.
    pub(super) async fn own_page(&self, call: &Call, reply: Reply<Bytes>) -> Result<Reply<Bytes>, Error> {
        if call.access.sees_all() {
            return Ok(reply);
        }
        let page = decode::<ListTasksResponse>(&reply.message, &reply.instance)?;
        // Others are merged.
        let page = self.own_tasks(call, page, true).await?;
        Ok(Reply {
            message: encode(&page),
            ..reply
        })
    }

    /// A page without the tasks that the caller may not see: those of others, and those of which nobody knows whose they are. What is
    /// left out is not counted either; and where its agent counts what others have, nothing but the page is.
    async fn own_tasks(
        &self,
        call: &Call,
        mut page: ListTasksResponse,
        is_own: bool,
    ) -> Result<ListTasksResponse, Error> {
        if call.access.sees_all() {
            return Ok(page);
        }
        let now = self.parts.clock.now();
        let questions: Vec<_> = page
            .tasks
            .iter()
            .map(|task| self.parts.ownership.of(&task.id, now))
            .collect();
        let owners: Vec<_> = stream::iter(questions).buffered(AT_ONCE).try_collect().await?;
        let all = page.tasks.len();
        let mut owners = owners.into_iter();
        page.tasks.retain(|_| {
            let owner = owners.next().flatten();
            call.access
                .caller()
                .may_see(owner.as_ref().and_then(|owner| owner.caller.as_deref()))
        });
        let count = |tasks: usize| i32::try_from(tasks).unwrap_or(i32::MAX);
        page.total_size = if is_own {
            page.total_size.saturating_sub(count(all - page.tasks.len()))
        } else {
            count(page.tasks.len())
        };
        Ok(page)
    }
}

/// What a page token says of whom it was made for.
fn hashed(caller: &str) -> String {
    let hash = Sha256::digest(caller);
    URL_SAFE_NO_PAD.encode(hash.get(..16).unwrap_or_default())
}

/// What all instances are asked for.
struct Inquiry<'i> {
    forwarder: &'i Forwarder,
    call: &'i Call,
    scope: &'i Scope,
    request: ListTasksRequest,
    asked: usize,
    times: Times,
}

/// A store's page, and how many bytes it had; none where the store has left.
type PageOf = Option<(Source, ListTasksResponse, usize)>;

impl Inquiry<'_> {
    /// The page at which a store stands, of the first of its instances that says it.
    async fn page_of(&self, source: Source) -> Result<PageOf, Error> {
        let asked = Asked::read(
            ListTasks::METHOD,
            encode(&ListTasksRequest {
                page_size: i32::try_from(self.asked).ok(),
                page_token: source.token.clone(),
                ..self.request.clone()
            }),
        )?;
        let delivery = Delivery::new(
            ListTasks::METHOD,
            self.call,
            self.scope,
            &asked.encoded,
            self.times,
        );
        let mut silent = None;
        for id in &source.instances {
            let key = Key {
                agent: source.agent.clone(),
                instance: id.clone(),
            };
            let view = &self.forwarder.parts.view;
            let Some(instance) = view.read().instance(&key).cloned() else {
                continue;
            };
            let is_own = instance.tells_callers_apart;
            let detail = match self.forwarder.ask_one(&delivery, instance, PATIENCE).await {
                Spoken::Answered(bytes) => {
                    let page = decode::<ListTasksResponse>(&bytes, &key)?;
                    let page = self.forwarder.own_tasks(self.call, page, is_own).await?;
                    return Ok(Some((source, page, bytes.len())));
                }
                Spoken::Failed(Failure::Answered(status)) => return Err(Error::Agent(status)),
                Spoken::Failed(failure) => failure.into_error(&key, true).to_string(),
                Spoken::Nothing(why) => why.to_owned(),
            };
            if view.read().instance(&key).is_some() {
                silent = Some((key, detail));
            }
        }
        match silent {
            Some((Key { agent, instance }, detail)) => Err(Error::Unlisted {
                agent,
                instance,
                detail,
            }),
            None => Ok(None),
        }
    }
}
