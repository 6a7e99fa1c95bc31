//! AuthService: sign in over REST, short-lived JWT access tokens, rotating refresh tokens, JWKS.
//!
//! The map, from the ground up; who may use whom is checked by `tests/it/arrows.rs` and explained in `docs/ARCHITECTURE.md`.

// Base: knows nothing above it.
mod client;
pub mod clock;
pub mod config;
pub mod db;
pub mod entity;
mod hmac;
mod json;
pub mod random;
pub mod telemetry;

// Domains: what is true and may happen. No HTTP.
pub mod accounts;
pub mod adopt;
pub mod audit;
pub mod backup;
pub mod keys;
pub mod limits;
pub mod sessions;
pub mod tokens;

// HTTP that every surface shares. No domain but `audit::Origin`.
pub mod web;

// Composition.
pub mod app;

// Surfaces: how it looks on the wire. They do not know each other.
mod oauth;
mod ops;
mod rest;

// Top.
pub mod cli;
pub mod jobs;
pub mod routes;
