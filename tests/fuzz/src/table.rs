//! Tables that the data analysis is sent, and what is to be done with them: anything is computed or refused with the name of a field,
//! without a panic.
//!
//! The first byte of the input says in which form the rest is sent: as a file of CSV or of JSON, as data, or as text.

use muster_agent_data_analysis::analysis;
use muster_agent_data_analysis::job::{
    Body, DATA_PROCESSING, File, Job, STATISTICAL_ANALYSIS, VISUALIZATION,
};
use muster_agent_data_analysis::sql::Interrupt;

/// How often a statement asks whether it may go on.
const PATIENCE: i32 = 20;

/// See the module.
pub fn run(bytes: &[u8]) {
    let Some((form, rest)) = bytes.split_first() else {
        return;
    };
    let skill = match form / 4 % 3 {
        0 => DATA_PROCESSING,
        1 => STATISTICAL_ANALYSIS,
        _ => VISUALIZATION,
    };
    let file = |media_type| File {
        name: None,
        media_type: Some(media_type),
        bytes: rest,
    };
    let job = match form % 4 {
        0 => Job::new(Some(skill), Body::default(), "", &[file("text/csv")]),
        1 => Job::new(Some(skill), Body::default(), "", &[file("application/json")]),
        2 => {
            let Ok(body) = serde_json::from_slice::<Body>(rest) else {
                return;
            };
            Job::new(Some(skill), body, "", &[])
        }
        _ => Job::new(Some(skill), Body::default(), &String::from_utf8_lossy(rest), &[]),
    };
    let report = job.and_then(Job::read).and_then(|(table, steps)| {
        analysis::run(&table, &steps, &|| -> Interrupt {
            let mut asked = 0;
            Box::new(move || {
                asked += 1;
                asked > PATIENCE
            })
        })
    });
    match report {
        Ok(report) => assert!(!report.summary.is_empty()),
        Err(error) => assert!(!error.field.is_empty() && !error.message.is_empty()),
    }
}
