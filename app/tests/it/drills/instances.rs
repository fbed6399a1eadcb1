//! The drills of several instances: three processes of the built binary over one PostgreSQL and one Redis, with a balancer in front.
//!
//! What is one service to its clients must stay one when a part of it is broken: what ended has ended everywhere, what fails says so in time, and what is
//! whole again is used again by itself. A drill that holds says nothing; one that falls says its figures.

mod balancer;
mod fleet;
mod kill;
mod load;
mod refusals;

pub(super) use fleet::redis_url;
use kill::*;
use refusals::*;

on_postgres! {
    a_killed_instance_fails_what_it_had_in_hand_and_its_jobs_are_done_once
    a_read_only_database_is_read_from_and_writes_are_503_until_it_takes_them_again
    a_database_that_closes_all_connections_costs_no_500_and_is_back_within_a_second
    a_database_without_a_free_connection_costs_503_in_time_and_is_back_within_a_second
}
