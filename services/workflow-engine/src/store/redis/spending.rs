//! What namespaces have used: kept in the partitions of the runs, because the step that uses it writes it, with a sum for each
//! namespace and day, so that a question costs one command for each partition, however many runs there are.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::future::try_join_all;
use muster_store::redis::{Script, cmd};
use muster_workflow_dsl::usage::Usage;

use super::Redis;
use super::keys::{self, Partition};
use crate::store::Error;
use crate::store::spending::Spending;

static FORGET: Script = Script::new(include_str!("spending_forget.lua"));

/// Days that are asked for with one command.
const DAYS_AT_ONCE: usize = 100;

/// Figures that are forgotten with one call.
const FORGET_AT_ONCE: usize = 500;

impl Redis {
    async fn spent_in(&self, partition: u16, namespace: &str, days: &[i64]) -> Result<Usage, Error> {
        let mut command = cmd("HMGET");
        command.arg(Partition::new(self.prefix(), partition).spent_total(namespace));
        for day in days {
            command.arg(format!("{day} tokens")).arg(format!("{day} cost"));
        }
        let sums: Vec<Option<i64>> = self.run(&command).await?;
        let figure = |sum: Option<&Option<i64>>| {
            let sum = sum.copied().flatten().unwrap_or_default();
            u64::try_from(sum).unwrap_or_default()
        };
        let usages = sums.chunks(2).map(|sums| Usage {
            tokens: figure(sums.first()),
            cost_micros: figure(sums.get(1)),
        });
        Ok(usages.sum())
    }

    /// Forgets some of the figures of a partition.
    async fn forget_spent_in(&self, partition: u16, day: i64, limit: usize) -> Result<usize, Error> {
        let keys = Partition::new(self.prefix(), partition);
        let mut command = cmd("ZRANGE");
        command
            .arg(keys.spent_order())
            .arg("-")
            .arg(format!("({}", keys::sortable(day)));
        command
            .arg("BYLEX")
            .arg("LIMIT")
            .arg(0)
            .arg(limit.min(FORGET_AT_ONCE));
        let places: Vec<String> = self.run(&command).await?;
        let mut namespaces: BTreeMap<&str, Vec<(i64, &str)>> = BTreeMap::new();
        for place in &places {
            let (day, namespace) = keys::spender(place)
                .ok_or_else(|| Error::Damaged(format!("no figure is named by place '{place}'")))?;
            namespaces.entry(namespace).or_default().push((day, place));
        }
        for (namespace, figures) in namespaces {
            let mut call = FORGET
                .call()
                .key(keys.spent())
                .key(keys.spent_order())
                .key(keys.spent_total(namespace));
            for (day, place) in figures {
                call.push_number(day);
                call.push(place);
            }
            self.call::<usize>(&call).await?;
        }
        Ok(places.len())
    }
}

#[async_trait]
impl Spending for Redis {
    async fn spent(&self, namespace: &str, from: i64, to: i64) -> Result<Usage, Error> {
        let days: Vec<i64> = (from..=to).collect();
        let mut sum = Usage::default();
        for days in days.chunks(DAYS_AT_ONCE) {
            let reads = (0..self.partitions()).map(|partition| self.spent_in(partition, namespace, days));
            sum += try_join_all(reads).await?.into_iter().sum::<Usage>();
        }
        Ok(sum)
    }

    async fn forget_spending(&self, day: i64, limit: usize) -> Result<usize, Error> {
        let mut forgotten = 0;
        for partition in 0..self.partitions() {
            while forgotten < limit {
                let some = self.forget_spent_in(partition, day, limit - forgotten).await?;
                if some == 0 {
                    break;
                }
                forgotten += some;
            }
        }
        Ok(forgotten)
    }
}
