//! The whole system as its user runs it: `tidegate dev`, three kinds of services as processes, on both brokers.

#![allow(clippy::disallowed_methods, reason = "tests measure real time")]

mod aggregates;
mod bad_input;
mod bounds;
mod broker;
mod check;
mod clicks;
mod cold_start;
mod coordinators;
mod dev;
mod drifting;
mod duckdb;
mod early;
mod evolving;
mod flights;
mod formats;
mod hostile;
mod job;
mod local_days;
mod manual;
mod monitoring;
mod poisoned;
mod profile;
mod prometheus;
mod reorder;
mod replay;
mod savepoint;
mod scaling;
mod security;
mod services;
mod sliding;
mod slow;
mod spilling;
mod stopping;
mod trace_join;
mod traces;
mod why;
