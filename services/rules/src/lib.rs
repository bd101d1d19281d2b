//! SQL over the log, exactly once into topics.
