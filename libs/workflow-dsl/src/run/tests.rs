//! Documents that run in a world of virtual time and scripted agents.

mod approvals;
mod calling;
mod control;
mod data;
mod extending;
mod failures;
mod folding;
mod limits;
mod replay;
mod shapes;
mod timing;
mod world;

use world::{Reply, World, problem_of};
