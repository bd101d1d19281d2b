//! Deterministic simulation: seeded random, virtual clock, faulty bus; tests only.
