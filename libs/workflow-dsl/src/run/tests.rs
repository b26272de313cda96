//! Documents that run in a world of virtual time and scripted agents.

mod approvals;
mod budgets;
mod calling;
mod compensating;
mod control;
mod data;
mod events;
mod extending;
mod failures;
mod folding;
mod launching;
mod limits;
mod outward;
mod replay;
mod rewinding;
mod shapes;
mod snapshots;
mod steering;
mod timing;
mod world;

use world::{Reply, World, definition, problem_of};
